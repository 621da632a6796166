import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile, rm, truncate } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Digest } from '../src/oci/digest.ts';
import { blobKey } from '../src/store/keys.ts';
import { AUTHORIZATION, startHosted, type HostedWorld } from './support/hosted.ts';
import { content, makeArtifact, makeImage, pushImage, randomBytes, sha256, type Content } from './support/image.ts';
import { startRegistry } from './support/program.ts';

const REPOSITORY = 'local/team/app';

interface Answer {
  status: number;
  headers: Headers;
  code: string | undefined;
  body: Buffer;
}

/** One request with the credentials of `ci`, unless `headers` says otherwise. */
async function ask(
  url: string,
  { method = 'GET', headers = {}, body }: { method?: string; headers?: Record<string, string>; body?: Buffer },
): Promise<Answer> {
  const response = await fetch(url, {
    method,
    headers: { authorization: AUTHORIZATION, ...headers },
    ...(body === undefined ? {} : { body: new Uint8Array(body) }),
  });
  const bytes = Buffer.from(await response.arrayBuffer());
  const isError = response.status >= 400 && bytes.length > 0;
  const code = isError ? (JSON.parse(bytes.toString()) as { errors: { code: string }[] }).errors[0]?.code : undefined;
  return { status: response.status, headers: response.headers, code, body: bytes };
}

async function start(world: HostedWorld, replica = 0): Promise<string> {
  const base = world.registries[replica]?.url ?? '';
  const { status, headers } = await ask(`${base}/v2/${REPOSITORY}/blobs/uploads/`, { method: 'POST' });
  assert.equal(status, 202);
  return headers.get('location') ?? '';
}

function patch(url: string, body: Buffer, range?: string): Promise<Answer> {
  return ask(url, { method: 'PATCH', body, headers: range === undefined ? {} : { 'content-range': range } });
}

async function assertPullable(url: string, blob: Content): Promise<void> {
  const response = await fetch(`${url}/v2/${REPOSITORY}/blobs/${blob.digest}`);
  assert.equal(response.status, 200);
  assert.ok(blob.bytes.equals(Buffer.from(await response.arrayBuffer())));
}

const blobOf = (seed: string, size = 100_000) => content('application/octet-stream', randomBytes(seed, size));

test('promise 22: an upload can be continued on another replica, and after a restart', async () => {
  await using world = await startHosted({ replicas: 2 });
  const [one, two] = world.registries;
  assert.ok(one && two);
  const blob = blobOf('replicas');
  const location = await start(world);
  assert.equal((await patch(one.url + location, blob.bytes.subarray(0, 40_000))).status, 202);
  assert.equal((await patch(two.url + location, blob.bytes.subarray(40_000, 70_000), '40000-69999')).status, 202);
  await one.stop('SIGKILL');
  await using restarted = await startRegistry(world.configuration);
  const status = await ask(restarted.url + location, {});
  assert.equal(status.status, 204, status.body.toString());
  assert.equal(status.headers.get('range'), '0-69999');
  const last = blob.bytes.subarray(70_000);
  const done = await ask(`${restarted.url}${location}?digest=${blob.digest}`, { method: 'PUT', body: last });
  assert.equal(done.status, 201);
  await assertPullable(two.url, blob);
  await assertPullable(restarted.url, blob);
});

test('promise 22: an acknowledged push survives SIGKILL, and every replica has it', async () => {
  await using world = await startHosted({ replicas: 2 });
  const [one, two] = world.registries;
  assert.ok(one && two);
  const image = makeImage({ seed: 'killed', architectures: ['amd64'] });
  await pushImage(one.url, REPOSITORY, '1', image, AUTHORIZATION);
  await one.stop('SIGKILL');
  const answer = await fetch(`${two.url}/v2/${REPOSITORY}/manifests/1`);
  assert.equal(answer.headers.get('docker-content-digest'), image.root.digest);
  for (const { config, layers } of image.platforms) for (const blob of [config, ...layers]) await assertPullable(two.url, blob);
});

test('an upload that is cut anywhere stands where it was acknowledged, and can be ended', async () => {
  await using world = await startHosted();
  const { url } = world.registry;
  const blob = blobOf('cut', 64);
  const { hostname, port } = new URL(url);
  for (let cut = 0; cut <= blob.size; cut++) {
    const location = await start(world);
    const socket = connect(Number(port), hostname);
    await once(socket, 'connect');
    const head = `PATCH ${location} HTTP/1.1\r\nHost: x\r\nAuthorization: ${AUTHORIZATION}\r\nContent-Length: ${blob.size}\r\n\r\n`;
    socket.write(head);
    socket.write(blob.bytes.subarray(0, cut));
    if (cut === blob.size) await once(socket, 'data');
    socket.destroy();
    await once(socket, 'close');
    const { headers } = await ask(url + location, {});
    const stands = headers.get('range') === '0-0' ? 0 : Number(headers.get('range')?.slice(2)) + 1;
    assert.ok(stands === 0 || stands === blob.size, `cut after ${cut}: ${stands}`);
    const done = await ask(`${url}${location}?digest=${blob.digest}`, { method: 'PUT', body: blob.bytes.subarray(stands) });
    assert.equal(done.status, 201, `cut after ${cut}`);
  }
});

test('promise 23: a manifest is accepted only if everything that it names is stored; its subject may be missing', async () => {
  await using world = await startHosted();
  const { url } = world.registry;
  const image = makeImage({ seed: 'parts', architectures: ['amd64'] });
  const [platform] = image.platforms;
  assert.ok(platform);
  const put = () =>
    ask(`${url}/v2/${REPOSITORY}/manifests/1`, {
      method: 'PUT',
      body: image.root.bytes,
      headers: { 'content-type': image.root.mediaType },
    });
  assert.deepEqual([(await put()).status, (await put()).code], [404, 'MANIFEST_BLOB_UNKNOWN']);
  // A blob that another repository has is not this one's: it is mounted, or pushed again.
  await pushImage(url, 'local/another', '1', image, AUTHORIZATION);
  assert.equal((await put()).code, 'MANIFEST_BLOB_UNKNOWN');
  for (const { digest } of [platform.config, ...platform.layers]) {
    const mounted = await ask(`${url}/v2/${REPOSITORY}/blobs/uploads/?mount=${digest}&from=local/another`, { method: 'POST' });
    assert.equal(mounted.status, 201);
  }
  assert.equal((await put()).status, 201);
  const artifact = makeArtifact({ ...image.root, digest: sha256(Buffer.from('absent')) }, 'application/vnd.example.signature');
  await pushImage(url, REPOSITORY, 'signature', artifact, AUTHORIZATION);
});

test('promise 23: content that a manifest names cannot be deleted', async () => {
  await using world = await startHosted();
  const { url } = world.registry;
  const image = makeImage({ seed: 'kept' });
  await pushImage(url, REPOSITORY, '1', image, AUTHORIZATION);
  const [platform] = image.platforms;
  assert.ok(platform);
  const remove = (path: string) => ask(`${url}/v2/${REPOSITORY}/${path}`, { method: 'DELETE' });
  assert.equal((await remove(`manifests/${platform.manifest.digest}`)).code, 'DENIED');
  assert.equal((await remove(`blobs/${platform.config.digest}`)).code, 'DENIED');
  assert.equal((await remove(`manifests/${image.root.digest}`)).status, 202);
  assert.equal((await fetch(`${url}/v2/${REPOSITORY}/manifests/1`)).status, 404, 'the tag went with the manifest');
  assert.equal((await remove(`manifests/${platform.manifest.digest}`)).status, 202);
  assert.equal((await remove(`blobs/${platform.config.digest}`)).status, 202);
});

test('pushing needs a user with the right to it: a Basic challenge without credentials, DENIED without the right', async () => {
  const local = { push: [{ repositories: 'team/', users: ['ci'] }], pull: [{ repositories: 'team/', users: ['other'] }] };
  await using world = await startHosted({ local });
  const { url } = world.registry;
  const basic = (user: string, password: string) => `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;
  const post = (repository: string, authorization?: string) =>
    fetch(`${url}/v2/${repository}/blobs/uploads/`, { method: 'POST', headers: authorization === undefined ? {} : { authorization } });
  const anonymous = await post(REPOSITORY);
  assert.equal(anonymous.status, 401);
  assert.match(anonymous.headers.get('www-authenticate') ?? '', /^Basic /);
  assert.equal((await post(REPOSITORY, basic('ci', 'wrong'))).status, 401);
  assert.equal((await post(REPOSITORY, basic('other', 'other'))).status, 403);
  const denied = await post('local/elsewhere', AUTHORIZATION);
  assert.equal(denied.status, 403);
  assert.match(await denied.text(), /ci may not push local\/elsewhere"/, 'it names the repository');
  assert.equal((await post(REPOSITORY, AUTHORIZATION)).status, 202);
  // Not everybody may pull here; users who may push may also read.
  const pull = (authorization?: string) =>
    fetch(`${url}/v2/${REPOSITORY}/tags/list`, { headers: authorization === undefined ? {} : { authorization } });
  assert.equal((await pull()).status, 401);
  assert.equal((await pull(basic('other', 'other'))).status, 404, 'nothing was pushed yet');
  assert.equal((await pull(AUTHORIZATION)).status, 404);
});

test('an immutable tag keeps its digest, and the same manifest can be pushed again', async () => {
  const everything = [{ users: ['ci'] }];
  await using world = await startHosted({ local: { push: everything, delete: everything, immutableTags: ['v*'] } });
  const { url } = world.registry;
  const [first, second] = ['first', 'second'].map((seed) => makeImage({ seed, architectures: ['amd64'], layers: [1000] }));
  assert.ok(first && second);
  await pushImage(url, REPOSITORY, 'v1', first, AUTHORIZATION);
  await pushImage(url, REPOSITORY, 'v1', first, AUTHORIZATION);
  await assert.rejects(pushImage(url, REPOSITORY, 'v1', second, AUTHORIZATION), /DENIED.*immutable/);
  await pushImage(url, REPOSITORY, 'latest', second, AUTHORIZATION);
  const deleted = await ask(`${url}/v2/${REPOSITORY}/manifests/v1`, { method: 'DELETE' });
  assert.equal(deleted.code, 'DENIED');
});

test('a quota refuses a push that does not fit, and states the used and the allowed size', async () => {
  const everything = [{ users: ['ci'] }];
  await using world = await startHosted({ local: { push: everything, delete: everything, quota: { 'team/': '200KiB' } } });
  const { url } = world.registry;
  const push = (repository: string, blob: Content) =>
    ask(`${url}/v2/${repository}/blobs/uploads/?digest=${blob.digest}`, { method: 'POST', body: blob.bytes });
  assert.equal((await push(REPOSITORY, blobOf('fits', 150_000))).status, 201);
  const refused = await push(REPOSITORY, blobOf('does not fit', 150_000));
  assert.deepEqual([refused.status, refused.code], [403, 'DENIED']);
  assert.match(refused.body.toString(), /204800.*150000/);
  assert.equal((await push('local/other', blobOf('elsewhere', 150_000))).status, 201);
  // A body without a length counts as well.
  const streamed = blobOf('streamed', 40_000);
  for (const [blob, status] of [
    [streamed, 201],
    [blobOf('streamed, too', 40_000), 403],
  ] as const) {
    const response = await fetch(`${url}/v2/${REPOSITORY}/blobs/uploads/?digest=${blob.digest}`, {
      method: 'POST',
      headers: { authorization: AUTHORIZATION },
      body: ReadableStream.from([new Uint8Array(blob.bytes)]),
      duplex: 'half',
    });
    assert.equal(response.status, status);
  }
});

test("invalid pushes are refused with the specification's error code, and leave nothing behind", async () => {
  await using world = await startHosted();
  const { url } = world.registry;
  const blob = blobOf('wrong', 1000);
  const other = blobOf('other', 1000).digest;
  const put = (location: string, query: string, body = blob.bytes) => ask(`${url}${location}${query}`, { method: 'PUT', body });
  const cases: [string, Promise<Answer>, [number, string]][] = [
    ['another digest', put(await start(world), `?digest=${other}`), [400, 'DIGEST_INVALID']],
    ['no digest', put(await start(world), ''), [400, 'DIGEST_INVALID']],
    ['two digests', put(await start(world), `?digest=${blob.digest}&digest=${other}`), [400, 'DIGEST_INVALID']],
    ['an unknown upload', put(`/v2/${REPOSITORY}/blobs/uploads/${'0'.repeat(32)}`, `?digest=${blob.digest}`), [404, 'BLOB_UPLOAD_UNKNOWN']],
    ['no upload id', put(`/v2/${REPOSITORY}/blobs/uploads/x`, `?digest=${blob.digest}`), [404, 'BLOB_UPLOAD_UNKNOWN']],
    ['a chunk that begins later', patch(url + (await start(world)), blob.bytes, '10-1009'), [416, 'RANGE_INVALID']],
    ['a chunk of another length', patch(url + (await start(world)), blob.bytes, '0-9'), [416, 'RANGE_INVALID']],
    ['a malformed range', patch(url + (await start(world)), blob.bytes, 'x'), [416, 'RANGE_INVALID']],
    [
      'a tag of 129 characters',
      ask(`${url}/v2/${REPOSITORY}/manifests/${'t'.repeat(129)}`, { method: 'PUT', body: Buffer.from('{}') }),
      [400, 'TAG_INVALID'],
    ],
    ['a name outside the grammar', ask(`${url}/v2/local/Team/blobs/uploads/`, { method: 'POST' }), [400, 'NAME_INVALID']],
    [
      'a manifest that is no JSON',
      ask(`${url}/v2/${REPOSITORY}/manifests/1`, {
        method: 'PUT',
        body: Buffer.from('{'),
        headers: { 'content-type': 'application/vnd.oci.image.manifest.v1+json' },
      }),
      [400, 'MANIFEST_INVALID'],
    ],
    [
      'a manifest with a byte order mark, which clients cannot parse',
      ask(`${url}/v2/${REPOSITORY}/manifests/1`, {
        method: 'PUT',
        body: Buffer.from('\uFEFF{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'),
        headers: { 'content-type': 'application/vnd.oci.image.index.v1+json' },
      }),
      [400, 'MANIFEST_INVALID'],
    ],
    [
      'a manifest of 5 MiB',
      ask(`${url}/v2/${REPOSITORY}/manifests/1`, { method: 'PUT', body: Buffer.alloc(5 * 2 ** 20, ' ') }),
      [400, 'MANIFEST_INVALID'],
    ],
  ];
  for (const [name, answer, expected] of cases) {
    const { status, code } = await answer;
    assert.deepEqual([status, code], expected, name);
  }
  assert.equal((await fetch(`${url}/v2/${REPOSITORY}/blobs/${blob.digest}`)).status, 404);
});

test('an upload of one repository is unknown in another', async () => {
  await using world = await startHosted();
  const { url } = world.registry;
  const blob = blobOf('elsewhere', 1000);
  const location = (await start(world)).replace(REPOSITORY, 'local/other');
  assert.equal((await patch(url + location, blob.bytes)).code, 'BLOB_UPLOAD_UNKNOWN');
});

test('two pushes of one blob at once both succeed', async () => {
  await using world = await startHosted({ replicas: 2 });
  const blob = blobOf('at once', 3_000_000);
  const pushes = [0, 1].map(async (replica) => {
    const url = world.registries[replica]?.url ?? '';
    const location = await start(world, replica);
    await patch(url + location, blob.bytes);
    return ask(`${url}${location}?digest=${blob.digest}`, { method: 'PUT' });
  });
  for (const { status } of await Promise.all(pushes)) assert.equal(status, 201);
  for (const { url } of world.registries) await assertPullable(url, blob);
});

test('a blob whose bytes the storage has lost is not said to exist, so that a client pushes it again', async () => {
  await using world = await startHosted();
  const { url } = world.registry;
  const blob = blobOf('lost', 3_000_000);
  const push = async (): Promise<number> =>
    (await ask(`${url}/v2/${REPOSITORY}/blobs/uploads/?digest=${blob.digest}`, { method: 'POST', body: blob.bytes })).status;
  const head = async (): Promise<number> => (await ask(`${url}/v2/${REPOSITORY}/blobs/${blob.digest}`, { method: 'HEAD' })).status;
  assert.equal(await push(), 201);
  assert.equal(await head(), 200);
  const file = join(world.directory, 'data', blobKey(blob.digest as Digest));
  for (const lose of [() => truncate(file, 1000), () => rm(file)]) {
    await lose();
    assert.equal(await head(), 404);
    assert.equal(await push(), 201);
    assert.equal(await head(), 200);
    await assertPullable(url, blob);
  }
});

test('a manifest whose bytes the storage has lost is not said to exist, so that a client pushes it again', async () => {
  const image = makeImage({ architectures: ['amd64'], layers: [1000] });
  await using world = await startHosted({ replicas: 3 });
  const [first, ...others] = world.registries;
  await pushImage(first?.url ?? '', REPOSITORY, 'lost', image, AUTHORIZATION);
  const file = join(world.directory, 'data', blobKey(image.root.digest as Digest));
  // A replica that has read the manifest keeps it in memory.
  for (const [n, lose] of [() => truncate(file, 10), () => rm(file)].entries()) {
    await lose();
    const url = others[n]?.url ?? '';
    const head = async (): Promise<number> => (await ask(`${url}/v2/${REPOSITORY}/manifests/lost`, { method: 'HEAD' })).status;
    assert.equal(await head(), 404);
    await pushImage(url, REPOSITORY, 'lost', image, AUTHORIZATION);
    assert.equal(await head(), 200);
    assert.deepEqual(await readFile(file), image.root.bytes);
  }
});

test('repositories are listed only for users who may pull from them', async () => {
  const local = { push: [{ users: ['ci'] }], pull: [{ repositories: 'public/', users: ['other'] }] };
  await using world = await startHosted({ local });
  const { url } = world.registry;
  const image = makeImage({ seed: 'catalog', architectures: ['amd64'], layers: [100] });
  const repositories = ['local/public/a', 'local/public/a/b', 'local/team/c'];
  for (const repository of repositories) await pushImage(url, repository, '1', image, AUTHORIZATION);
  const list = async (authorization: string, query = '') => {
    const { body, status } = await ask(`${url}/v2/_catalog${query}`, { headers: { authorization } });
    assert.equal(status, 200, body.toString());
    return (JSON.parse(body.toString()) as { repositories: string[] }).repositories;
  };
  assert.deepEqual((await list(AUTHORIZATION)).sort(), repositories);
  assert.deepEqual(await list(`Basic ${Buffer.from('other:other').toString('base64')}`), ['local/public/a', 'local/public/a/b']);
  assert.deepEqual(await list(AUTHORIZATION, '?n=1'), ['local/public/a']);
  assert.deepEqual(await list(AUTHORIZATION, '?n=5&last=local/public/a'), ['local/public/a/b', 'local/team/c']);
});
