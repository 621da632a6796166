import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { hash } from '@node-rs/bcrypt';
import type { z } from 'zod';
import { OPERATIONS, type OperationName } from '../src/console/api/operations.ts';
import { makeImage, randomBytes } from './support/image.ts';
import { freeAddresses, startRegistry, type ServingProgram } from './support/program.ts';
import { startScriptedUpstream } from './support/scripted-upstream.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { until } from './support/until.ts';

const PASSWORD = 'correct horse battery staple';
const CONSOLE = { 'x-kube-registry-console': '1', 'content-type': 'application/json' };

type Answer<Name extends OperationName> = z.output<(typeof OPERATIONS)[Name]['response']>;

/** Calls an operation without a body, and checks the response against its schema. */
async function get<Name extends OperationName>(admin: string, name: Name, query = ''): Promise<Answer<Name>> {
  const response = await fetch(`${admin}${OPERATIONS[name].path}${query}`);
  const text = await response.text();
  assert.equal(response.status, 200, `${name}: ${text}`);
  return OPERATIONS[name].response.parse(JSON.parse(text)) as Answer<Name>;
}

async function post(admin: string, path: string, body: unknown, headers: Record<string, string> = {}, method = 'POST') {
  const response = await fetch(`${admin}${path}`, { method, headers: { ...CONSOLE, ...headers }, body: JSON.stringify(body) });
  const answer = (await response.json()) as Record<string, unknown> & { error?: { code: string; message: string } };
  return {
    status: response.status,
    answer,
    code: answer.error?.code,
    cookie: response.headers.getSetCookie()[0]?.split(';')[0] ?? '',
    response,
  };
}

async function logIn(admin: string, user = 'admin', password = PASSWORD): Promise<string> {
  const { status, cookie } = await post(admin, '/api/session', { user, password });
  assert.equal(status, 200);
  return cookie;
}

async function writeUsers(file: string, users: Record<string, string>): Promise<void> {
  const lines = await Promise.all(Object.entries(users).map(async ([name, password]) => `${name}:${await hash(password, 4)}\n`));
  await writeFile(file, lines.join(''));
}

async function pull({ url }: ServingProgram, repository: string, tag: string, image: ReturnType<typeof makeImage>): Promise<void> {
  const parts = image.platforms
    .slice(0, 1)
    .flatMap(({ manifest, config, layers }) => [
      `manifests/${manifest.digest}`,
      ...[config, ...layers].map(({ digest }) => `blobs/${digest}`),
    ]);
  for (const path of [`manifests/${tag}`, ...parts]) {
    const response = await fetch(`${url}/v2/${repository}/${path}`);
    await response.arrayBuffer();
    assert.equal(response.status, 200, path);
  }
}

async function untilListed(admin: string, images: number): Promise<void> {
  await until(async () => {
    const { total, images: listed } = await get(admin, 'images');
    // An image may be listed before its tag and its last blobs are written.
    return total === images && listed.every(({ tag, complete, lastUsed }) => tag !== null && complete && lastUsed !== null);
  }, `${images} images are listed whole, with their tags`);
}

test('the console shows pulled images, upstreams, history and the access log, and every response matches its schema', async () => {
  await using upstream = await startScriptedUpstream();
  const image = makeImage({ seed: 'console', layers: [50_000] });
  upstream.add('apps/web', '1.27', image);
  await using registry = await startRegistry({
    upstreams: { hub: { url: upstream.url, hosts: ['hub.example'], proxy: 'direct' } },
    accessLog: true,
    console: { inventoryInterval: '1s' },
  });
  await pull(registry, 'hub/apps/web', '1.27', image);
  await pull(registry, 'hub/apps/web', '1.27', image);
  await untilListed(registry.admin, 1);
  const { images } = await get(registry.admin, 'images', '?search=WEB&sort=size&order=desc');
  const [row] = images;
  assert.equal(row?.name, 'hub.example/apps/web:1.27');
  assert.deepEqual([row.repository, row.tag, row.digest], ['hub/apps/web', '1.27', image.root.digest]);
  assert.deepEqual(row.platforms, ['linux/amd64']);
  assert.ok(row.complete && row.lastUsed !== null && row.size > 50_000);
  assert.equal((await get(registry.admin, 'images', '?search=nothing')).total, 0);
  const detail = await get(registry.admin, 'image', `?repository=hub/apps/web&digest=${image.root.digest}`);
  assert.deepEqual(detail.names, ['hub.example/apps/web:1.27']);
  assert.deepEqual(
    detail.platforms.map(({ platform, stored, layers }) => [platform, stored, layers.length]),
    [
      ['linux/amd64', true, 1],
      ['linux/arm64', false, 0],
    ],
  );
  const overview = await get(registry.admin, 'overview');
  assert.ok(overview.totals.requests >= 8 && overview.totals.hits > 0 && overview.totals.misses > 0);
  assert.ok(overview.hitRate !== null && overview.hitRate > 0 && overview.savedBytes > 0);
  assert.equal(overview.inventory.images, 1);
  const hub = (await get(registry.admin, 'upstreams')).upstreams.find(({ name }) => name === 'hub');
  assert.equal(hub?.state, 'up');
  assert.ok(hub.latency !== null && hub.hour.requests > 0 && hub.hour.bytes > 50_000);
  const history = await get(registry.admin, 'history');
  assert.equal(history.requests.length, 360);
  assert.ok(history.requests.reduce((sum, value) => sum + value) >= 8);
  assert.equal((await get(registry.admin, 'history', '?window=day')).requests.length, 288);
  assert.equal((await get(registry.admin, 'agents')).nodes[0]?.address, '127.0.0.1');
  for (const name of ['downloads', 'clash', 'webhook', 'replicas', 'policy', 'jobs', 'session'] as const) await get(registry.admin, name);
  const check = await get(registry.admin, 'check', '?image=hub.example/apps/web:1.27');
  assert.deepEqual([check.served, check.stored, check.digest, check.upstream.answer], [true, 'complete', image.root.digest, 'found']);
  const requests = upstream.requests.length;
  const local = await get(registry.admin, 'check', '?image=hub.example/apps/web:1.27&ask=no');
  assert.deepEqual([local.stored, local.tag?.digest, local.upstream.answer], ['complete', image.root.digest, 'not-asked']);
  assert.equal(upstream.requests.length, requests, 'without a question to the upstream');
  await until(() => registry.log().some(({ event }) => event === 'image-pulled'), 'the pull is in the access log');
  const [line] = registry.log().filter(({ event }) => event === 'image-pulled');
  assert.deepEqual(
    [line?.['client'], line?.['upstream'], line?.['repository'], line?.['tag'], line?.['digest'], line?.['outcome']],
    ['127.0.0.1', 'hub', 'apps/web', '1.27', image.root.digest, 'miss'],
  );
  assert.ok(Number(line?.['bytes']) > 100_000, 'of both pulls, which followed each other at once');
  assert.equal(typeof line?.['ms'], 'number');
});

test('the bytes of a running download count while they arrive', async () => {
  await using upstream = await startScriptedUpstream();
  const digest = upstream.addBlob(randomBytes('slow', 32 * 2 ** 20));
  const image = makeImage({ seed: 'saved', layers: [50_000] });
  upstream.add('apps/web', '1.27', image);
  upstream.behave = ({ path }) => (path.endsWith(digest) ? { rate: 100_000 } : {});
  await using registry = await startRegistry({ upstreams: { hub: { url: upstream.url, proxy: 'direct' } } });
  for (let n = 0; n < 2; n++) await pull(registry, 'hub/apps/web', '1.27', image);
  const stop = new AbortController();
  const pulled = fetch(`${registry.url}/v2/hub/apps/web/blobs/${digest}`, { signal: stop.signal }).then((own) => own.arrayBuffer());
  pulled.catch(() => undefined); // the test has ended
  const hubBytes = async () => (await get(registry.admin, 'upstreams')).upstreams.find(({ name }) => name === 'hub')?.hour.bytes ?? 0;
  const before = await hubBytes();
  await until(async () => (await hubBytes()) > before + 100_000, 'the upstream has sent bytes');
  const { upstreamBytes } = await get(registry.admin, 'history');
  assert.ok(upstreamBytes.reduce((sum, bytes) => sum + bytes) > before + 100_000);
  const { totals, savedBytes } = await get(registry.admin, 'overview');
  assert.ok(totals.upstreamBytes > before + 100_000);
  assert.ok(savedBytes > 45_000, `the second pull was served from the cache: ${savedBytes} bytes`);
  assert.equal((await get(registry.admin, 'downloads')).total, 1, 'it still runs');
  stop.abort();
});

test('actions need a login, the header of the page and its origin; each is in the log with who', async () => {
  await using upstream = await startScriptedUpstream();
  await using folder = await temporaryDirectory();
  const users = join(folder.path, 'users');
  await writeUsers(users, { admin: PASSWORD, other: 'another password' });
  const image = makeImage({ seed: 'acted on', layers: [50_000] });
  upstream.add('apps/web', '1', image);
  upstream.add('apps/web', '2', image);
  await using registry = await startRegistry({
    upstreams: { hub: { url: upstream.url, hosts: ['hub.example'] } },
    console: { users, inventoryInterval: '1s' },
  });
  const { admin } = registry;
  const origin = admin.replace('127.0.0.1', 'evil.example');
  const name = { repository: 'hub/apps/web', tag: '1' };

  assert.equal((await post(admin, '/api/actions/pin', name)).status, 401, 'nobody is logged in');
  assert.equal((await post(admin, '/api/session', { user: 'admin', password: 'wrong' })).status, 401);
  const { cookie, response } = await post(admin, '/api/session', { user: 'admin', password: PASSWORD });
  const flags = response.headers.getSetCookie()[0] ?? '';
  assert.match(flags, /; HttpOnly; SameSite=Strict$/);
  const secure = await post(admin, '/api/session', { user: 'admin', password: PASSWORD }, { 'x-forwarded-proto': 'https' });
  assert.match(secure.response.headers.getSetCookie()[0] ?? '', /; Secure$/);
  const refused: [string, Record<string, string>, number][] = [
    ['from another origin', { cookie, origin }, 403],
    ['from another site', { cookie, 'sec-fetch-site': 'cross-site' }, 403],
    ['from another origin of this site', { cookie, 'sec-fetch-site': 'same-site' }, 403],
    ['with a cookie of another registry', { cookie: cookie.replace(/=.*/, `=${'A'.repeat(43)}`) }, 401],
    ['with a damaged cookie', { cookie: `${cookie}x` }, 401],
  ];
  for (const [how, headers, status] of refused) assert.equal((await post(admin, '/api/actions/pin', name, headers)).status, status, how);
  const bare = await fetch(`${admin}/api/actions/pin`, {
    method: 'POST',
    headers: { cookie, 'content-type': 'application/json' },
    body: JSON.stringify(name),
  });
  assert.equal(bare.status, 403, 'without the header of the page');
  const form = await fetch(`${admin}/api/actions/pin`, {
    method: 'POST',
    headers: { ...CONSOLE, cookie, 'content-type': 'text/plain' },
    body: JSON.stringify(name),
  });
  assert.equal(form.status, 400, 'as a form could send it');
  assert.equal(
    (await fetch(`${admin}/api/session`, { headers: { cookie } }).then((answer) => answer.json() as Promise<{ user: string }>)).user,
    'admin',
  );

  const warmed = await post(admin, '/api/actions/warm', { image: 'hub.example/apps/web:1', platforms: ['linux/amd64'] }, { cookie });
  assert.equal(warmed.status, 200);
  await until(async () => (await get(admin, 'jobs')).jobs[0]?.state === 'done', 'the image is warm');
  await post(admin, '/api/actions/warm', { image: 'hub.example/apps/web:2', platforms: ['linux/amd64'] }, { cookie });
  await untilListed(admin, 2);
  assert.equal((await post(admin, '/api/actions/pin', name, { cookie })).status, 200);
  assert.deepEqual(
    (await get(admin, 'images')).images.map(({ tag, pinned, kept }) => [tag, pinned, kept]),
    [
      ['1', true, 'pinned'],
      ['2', false, null],
    ],
  );
  assert.equal((await post(admin, '/api/actions/unpin', name, { cookie })).status, 200);

  const early = await post(admin, '/api/actions/prune', { dryRun: false }, { cookie });
  assert.deepEqual([early.status, early.code], [409, 'CONFLICT'], 'a dry run comes first');
  const dry = await post(admin, '/api/actions/prune', { dryRun: true }, { cookie });
  const plan = String(dry.answer['id']);
  await until(async () => (await get(admin, 'jobs')).jobs.find(({ id }) => id === plan)?.state === 'done', 'the dry run is done');
  assert.equal((await post(admin, '/api/actions/prune', { dryRun: false, plan }, { cookie })).status, 200);
  await until(async () => (await get(admin, 'jobs')).jobs[0]?.state === 'done', 'pruned');

  const other = await logIn(admin, 'other', 'another password');
  const stale = await post(admin, '/api/actions/delete-tag', { ...name, digest: `sha256:${'0'.repeat(64)}` }, { cookie });
  assert.deepEqual([stale.status, stale.code], [409, 'CONFLICT']);
  const both = await Promise.all(
    [cookie, other].map((own) => post(admin, '/api/actions/delete-tag', { ...name, digest: image.root.digest }, { cookie: own })),
  );
  assert.deepEqual(
    both.map(({ status }) => status),
    [200, 200],
  );
  assert.equal(both.filter(({ answer }) => answer['deleted'] === true).length, 1, 'one of two sessions has deleted it');
  await untilListed(admin, 1);
  const events = registry
    .log()
    .filter(({ user }) => user !== undefined)
    .map(({ event, user }) => `${String(event)} ${String(user)}`);
  for (const expected of [
    'console-login admin',
    'image-pinned admin',
    'image-unpinned admin',
    'console-job-started admin',
    'console-login other',
  ]) {
    assert.ok(events.includes(expected), `${expected} in ${events.join(', ')}`);
  }
  assert.equal(events.filter((event) => event.startsWith('tag-deleted ')).length, 1);
  assert.ok(!JSON.stringify(registry.log()).includes(PASSWORD));

  assert.equal((await post(admin, '/api/session', {}, { cookie }, 'DELETE')).status, 200);
  assert.equal((await post(admin, '/api/actions/pin', name, { cookie })).status, 401, 'the session has ended');
  await writeUsers(users, { admin: PASSWORD, other: 'a changed password' });
  await until(
    async () => (await post(admin, '/api/actions/pin', name, { cookie: other })).status === 401,
    'a changed password ends sessions',
  );
});

test('password guessing is limited, and login is disabled without users', async () => {
  await using folder = await temporaryDirectory();
  const users = join(folder.path, 'users');
  await writeUsers(users, { admin: PASSWORD });
  await using registry = await startRegistry({ console: { users } });
  const guesses = Array.from({ length: 30 }, (_, n) => post(registry.admin, '/api/session', { user: 'admin', password: `guess ${n}` }));
  const statuses = (await Promise.all(guesses)).map(({ status }) => status);
  assert.equal(statuses.filter((status) => status === 401).length, 10, 'however many are tried at once');
  assert.equal(statuses.filter((status) => status === 429).length, 20);
  const locked = await post(registry.admin, '/api/session', { user: 'admin', password: PASSWORD });
  assert.equal(locked.status, 429);
  assert.ok(Number(locked.response.headers.get('retry-after')) > 0);
  await using open = await startRegistry();
  assert.equal((await get(open.admin, 'session')).canLogIn, false);
  assert.equal((await post(open.admin, '/api/session', { user: 'admin', password: '' })).status, 400);
  assert.equal((await post(open.admin, '/api/session', { user: 'admin', password: 'x' })).status, 403);
});

test('wrong requests are errors of one form, and the description of the API is served', async () => {
  await using registry = await startRegistry();
  const wrong: [path: string, status: number, code: string][] = [
    ['/api/nothing', 404, 'NOT_FOUND'],
    ['/api', 404, 'NOT_FOUND'],
    ['/api/images?limit=100000', 400, 'BAD_REQUEST'],
    ['/api/images?unknown=1', 400, 'BAD_REQUEST'],
    ['/api/image?repository=..%2F..&digest=x', 400, 'BAD_REQUEST'],
    [`/api/image?repository=hub/a&digest=sha256:${'0'.repeat(64)}`, 404, 'NOT_FOUND'],
    ['/api/actions/pin', 405, 'METHOD_NOT_ALLOWED'],
  ];
  for (const [path, status, code] of wrong) {
    const response = await fetch(`${registry.admin}${path}`);
    const { error } = (await response.json()) as { error: { code: string; message: string } };
    assert.deepEqual([response.status, error.code], [status, code], path);
    assert.ok(error.message.length > 10);
  }
  const long = await post(registry.admin, '/api/session', { user: 'a', password: 'x'.repeat(100_000) });
  assert.deepEqual([long.status, long.code], [400, 'BAD_REQUEST']);
  const response = await fetch(`${registry.admin}/api/openapi.json`);
  const { paths } = (await response.json()) as { paths: Record<string, unknown> };
  assert.deepEqual(Object.keys(paths).sort(), [...new Set([...Object.values(OPERATIONS).map(({ path }) => path), '/api/events'])].sort());
  const disabled = await startRegistry({ console: { enabled: false } });
  await using _stop = disabled;
  assert.equal((await fetch(`${disabled.admin}/api/overview`)).status, 404);
  assert.equal((await fetch(`${disabled.admin}/`)).status, 200, 'the status page');
});

test('registry.console.listen serves only the console, requires a login for reading, and accepts no replicas', async () => {
  await using folder = await temporaryDirectory();
  const users = join(folder.path, 'users');
  await writeUsers(users, { admin: PASSWORD });
  const { listen } = await freeAddresses();
  await using registry = await startRegistry({ console: { users, listen } });
  const outside = `http://${listen}`;
  const session = await logIn(registry.admin);
  const statusOf = async (path: string, headers: Record<string, string> = {}) => (await fetch(`${outside}${path}`, { headers })).status;
  for (const path of ['/metrics', '/status', '/readyz', '/v2/']) assert.equal(await statusOf(path), 404, path);
  for (const path of ['/api/overview', '/api/events', '/api/openapi.json', '/api/nothing']) {
    assert.equal(await statusOf(path), 401, path);
    assert.equal(await statusOf(path, { 'x-kube-registry-replica': '1' }), 401, path);
    assert.equal(await statusOf(path, { 'x-kube-registry-session': session.replace(/^[^=]*=/, '') }), 401, path);
  }
  assert.equal(await statusOf('/api/session'), 200);
  const cookie = await logIn(outside);
  assert.equal(await statusOf('/api/overview', { cookie }), 200);
  assert.equal((await post(outside, '/api/actions/pin', { repository: 'hub/a', tag: '1' }, { cookie })).status, 200);
  assert.equal(
    (await fetch(`${outside}/api/session`, { headers: { cookie } }).then((answer) => answer.json() as Promise<{ user: string }>)).user,
    'admin',
  );
});

test('names and labels that try to be HTML are data: JSON with a type, and never markup', async () => {
  await using upstream = await startScriptedUpstream();
  const image = makeImage({ seed: 'hostile', layers: [1000], architectures: ['amd64'] });
  const [only] = image.platforms;
  assert.ok(only !== undefined);
  const attack = '"><img src=x onerror=alert(1)><script>alert(1)</script>\u2028';
  const config = Buffer.from(JSON.stringify({ os: 'linux', architecture: attack, config: { Labels: { [attack]: attack } } }));
  const digest = upstream.addBlob(config);
  const layer = only.layers[0];
  assert.ok(layer !== undefined);
  upstream.addBlob(layer.bytes);
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: only.manifest.mediaType,
      config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest, size: config.length },
      layers: [{ mediaType: layer.mediaType, digest: layer.digest, size: layer.size }],
      annotations: { [attack]: attack },
    }),
  );
  const repository = 'a__b/c---d/e.f_g/0';
  const root = upstream.addManifest(repository, 'V1.0-._x', manifest, only.manifest.mediaType);
  await using registry = await startRegistry({
    upstreams: { hub: { url: upstream.url, hosts: ['hub.example'] } },
    console: { inventoryInterval: '1s' },
  });
  for (const path of ['manifests/V1.0-._x', `blobs/${digest}`, `blobs/${layer.digest}`]) {
    assert.equal(
      (await fetch(`${registry.url}/v2/hub/${repository}/${path}`).then(async (answer) => (await answer.arrayBuffer(), answer))).status,
      200,
      path,
    );
  }
  await untilListed(registry.admin, 1);
  const response = await fetch(`${registry.admin}/api/image?repository=hub/${repository}&digest=${root}`);
  assert.equal(response.headers.get('content-type'), 'application/json; charset=utf-8');
  assert.equal(response.headers.get('x-content-type-options'), 'nosniff');
  const detail = OPERATIONS.image.response.parse(await response.json());
  assert.deepEqual(detail.platforms[0]?.labels, { [attack]: attack });
  assert.deepEqual(detail.annotations, { [attack]: attack });
  assert.equal((await get(registry.admin, 'images', '?search=v1.0-._X')).images[0]?.tag, 'V1.0-._x');
  const page = await fetch(`${registry.admin}/`);
  const policy = page.headers.get('content-security-policy') ?? '';
  assert.match(policy, /^default-src 'none'/);
  assert.ok(!/script-src[^;]*unsafe/.test(policy));
});
