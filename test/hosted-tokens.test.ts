import assert from 'node:assert/strict';
import { request, type IncomingMessage } from 'node:http';
import { text } from 'node:stream/consumers';
import { after, before, test } from 'node:test';
import { hash } from '@node-rs/bcrypt';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AUTHORIZATION, USER } from './support/hosted.ts';
import { makeImage, pushImage } from './support/image.ts';
import { startAgent, startRegistry, type ServingProgram } from './support/program.ts';
import { temporaryDirectory } from './support/temporary.ts';

// How Docker logs in (docs/decisions/docker-logs-in-by-token.md), by its requests.

const ENGINE = 'docker/20.10.24 go/go1.19.8 git-commit/5d6db84 kernel/6.1.0 os/linux arch/amd64 UpstreamClient(Docker-Client/20.10.24)';
const COMMAND_LINE = 'Docker-Client/28.2.2 (linux)';
const ANONYMOUS = 'Og==';
const basic = (user: string, password: string) => `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;

const resources = new AsyncDisposableStack();
let registry: ServingProgram;
let configuration: Record<string, unknown>;

before(async () => {
  const { path } = resources.use(await temporaryDirectory());
  const users = join(path, 'users');
  await writeFile(users, `${USER.username}:${await hash(USER.password, 5)}\ncolon:${await hash('a:b:c', 5)}\n`);
  const everything = [{ users: [USER.username] }];
  configuration = { users, hosted: { local: { push: everything, delete: everything }, private: { push: everything, pull: [] } } };
  registry = resources.use(await startRegistry(configuration, {}, { log: { level: 'debug' } }));
});
after(() => resources.disposeAsync());

interface Answer {
  status: number | undefined;
  headers: IncomingMessage['headers'];
  body: string;
}

async function ask(path: string, headers: Record<string, string> = {}, { method = 'GET', at = registry } = {}): Promise<Answer> {
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    request(at.url + path, { method, headers }, resolve)
      .once('error', reject)
      .end();
  });
  return { status: answer.statusCode, headers: answer.headers, body: await text(answer) };
}

async function tokenOf(authorization?: string): Promise<string> {
  const { status, body } = await ask('/v2/_token?service=x&scope=y', authorization === undefined ? {} : { authorization });
  assert.equal(status, 200);
  const { token, access_token: same, expires_in: seconds } = JSON.parse(body) as Record<string, unknown>;
  assert.equal(token, same);
  assert.ok(Number(seconds) >= 60);
  return String(token);
}

test('Docker is asked for a token at /v2/, by the URL that it used; other clients are answered as before', async () => {
  for (const agent of [ENGINE, COMMAND_LINE]) {
    for (const method of ['GET', 'HEAD']) {
      const { status, headers } = await ask('/v2/', { 'User-Agent': agent }, { method });
      assert.equal(status, 401);
      assert.equal(headers['www-authenticate'], `Bearer realm="${registry.url}/v2/_token",service="${registry.host}"`);
    }
  }
  const behind = { 'User-Agent': ENGINE, Host: 'registry.example.com', 'X-Forwarded-For': '10.0.0.1' };
  const { headers } = await ask('/v2/', { ...behind, 'X-Forwarded-Proto': 'https' });
  assert.equal(headers['www-authenticate'], 'Bearer realm="https://registry.example.com/v2/_token",service="registry.example.com"');
  const others: Record<string, string>[] = [
    {},
    { 'User-Agent': 'containers/5.30 (github.com/containers/image)' },
    { 'User-Agent': 'Go-http-client/1.1 docker/20.10' },
    behind, // a proxy that does not report whether the client used TLS
    { 'User-Agent': ENGINE, Host: 'a" b' },
    { 'User-Agent': ENGINE, Authorization: AUTHORIZATION },
    { 'User-Agent': ENGINE, Authorization: `Bearer ${ANONYMOUS}` },
  ];
  for (const given of others) {
    const answer = await ask('/v2/', given);
    assert.equal(answer.status, 200, JSON.stringify(given));
    assert.match(answer.headers['www-authenticate'] ?? '', /^Basic /, JSON.stringify(given));
  }
});

test('a token is given for right credentials, and for none', async () => {
  assert.equal(await tokenOf(), ANONYMOUS);
  assert.equal(await tokenOf(basic('', '')), ANONYMOUS);
  for (const login of [AUTHORIZATION, basic('colon', 'a:b:c'), AUTHORIZATION.replace('Basic', 'bearer')]) {
    const { headers } = await ask('/v2/_token', { authorization: login });
    assert.equal(headers['cache-control'], 'no-store');
    assert.equal((await ask('/v2/', { authorization: `Bearer ${await tokenOf(login)}` })).status, 200);
  }
  const refused = [
    basic(USER.username, 'wrong'),
    basic(USER.username, ''),
    basic('nobody', USER.password),
    basic('', USER.password),
    basic('colon', 'a'),
    'Basic',
    'Basic !!!',
    'Basic c2Vj',
    'Basic c2VjcmV0',
    `Basic ${'A'.repeat(12_004)}`,
    'Bearer',
    'Bearer a.b.c',
    'Bearer Bearer Og==',
    `Digest ${ANONYMOUS}`,
  ];
  for (const authorization of refused) {
    for (const path of ['/v2/_token', '/v2/', '/v2/_catalog', '/v2/local/app/tags/list']) {
      const { status, body } = await ask(path, { authorization });
      assert.equal(status, 401, `${path} ${authorization.slice(0, 40)}`);
      assert.match(body, /"UNAUTHORIZED"/);
    }
  }
  assert.equal((await ask('/v2/_token', { authorization: `Basic ${'A'.repeat(100_000)}` })).status, 431);
});

test('a token is asked for by GET and HEAD alone, and at one path', async () => {
  const head = await ask('/v2/_token', { authorization: AUTHORIZATION }, { method: 'HEAD' });
  assert.equal(head.status, 200);
  assert.equal(head.body, '');
  for (const method of ['POST', 'PUT', 'PATCH', 'DELETE']) {
    // containerd and Docker begin with a POST if they have a password or a refresh token, and send a GET after a 405.
    const { status, headers } = await ask('/v2/_token', { authorization: basic(USER.username, 'wrong') }, { method });
    assert.equal(status, 405, method);
    assert.equal(headers.allow, 'GET, HEAD');
  }
  for (const path of ['/v2/_token/', '/v2/_token/x', '/v2/_TOKEN', '/_token', '/v2//_token', '/v2/local/_token'])
    assert.ok([400, 404].includes((await ask(path, { authorization: AUTHORIZATION })).status ?? 0), path);
});

test('a token allows what its user may do, and nothing else', async () => {
  const image = makeImage({ seed: 'token', architectures: ['amd64'], layers: [1000] });
  const token = `Bearer ${await tokenOf(AUTHORIZATION)}`;
  const weaker = `Bearer ${await tokenOf(basic('colon', 'a:b:c'))}`;
  const anonymous = `Bearer ${await tokenOf()}`;
  await pushImage(registry.url, 'private/app', '1', image, token);
  const statusOf = async (method: string, path: string, authorization: string) =>
    (await ask(path, { authorization, 'User-Agent': ENGINE }, { method })).status;
  const manifest = '/v2/private/app/manifests/1';
  const cases: [string, string, [number, number, number]][] = [
    ['GET', manifest, [200, 403, 401]],
    ['POST', '/v2/private/app/blobs/uploads/', [202, 403, 401]],
    ['POST', '/v2/local/app/blobs/uploads/', [202, 403, 401]],
    ['DELETE', manifest, [403, 403, 401]],
    ['GET', '/v2/local/app/tags/list', [404, 404, 404]],
  ];
  for (const [method, path, expected] of cases) {
    const statuses = [];
    for (const login of [token, weaker, anonymous]) statuses.push(await statusOf(method, path, login));
    assert.deepEqual(statuses, expected, `${method} ${path}`);
  }
});

test('neither passwords nor tokens are in the log', async () => {
  for (const login of [AUTHORIZATION, AUTHORIZATION.replace('Basic', 'Bearer'), basic(USER.username, 'mistyped')])
    await ask('/v2/_token?account=ci', { authorization: login });
  const output = registry.output();
  assert.match(output, /"path":"\/v2\/_token"/);
  for (const secret of ['a:b:c', 'mistyped', AUTHORIZATION.slice('Basic '.length), basic(USER.username, 'mistyped').slice('Basic '.length)])
    assert.ok(!output.includes(secret), secret);
});

test('Docker is asked for nothing where it could send the password of Docker Hub, or has none to send', async () => {
  const { users: _, hosted, ...rest } = configuration;
  const upstreams = { dockerhub: { url: 'http://127.0.0.1:9' } };
  const settings = [{ ...configuration, upstreams, defaultUpstream: 'dockerhub' }, { ...rest, hosted: { local: {} } }, rest];
  assert.ok(hosted !== undefined);
  for (const setting of settings) {
    await using at = await startRegistry(setting);
    const { status, headers } = await ask('/v2/', { 'User-Agent': ENGINE }, { at });
    assert.equal(status, 200, JSON.stringify(setting));
    assert.doesNotMatch(headers['www-authenticate'] ?? '', /Bearer/);
    assert.notEqual((await ask('/v2/_token', {}, { at })).status, 200);
  }
});

test('an agent asks Docker on its node for nothing', async () => {
  await using agent = await startAgent({ registry: registry.url }, { registry: { hosted: configuration['hosted'] } });
  const { status, headers } = await ask('/v2/', { 'User-Agent': ENGINE }, { at: agent });
  assert.equal(status, 200);
  assert.equal(headers['www-authenticate'], undefined);
});
