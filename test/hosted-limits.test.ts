import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { AUTHORIZATION, startHosted } from './support/hosted.ts';
import { content, makeImage, pushImage, randomBytes, sha256, type Content } from './support/image.ts';
import { s3Error, startScriptedS3, type S3Request, type ScriptedS3 } from './support/scripted-s3.ts';
import { smallVolume } from './support/small-volume.ts';

const REPOSITORY = 'local/team/app';
const INDEX = 'application/vnd.oci.image.index.v1+json';
const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
/** OPEN_UPLOADS=10000 for the long run. */
const OPEN_UPLOADS = Number(process.env['OPEN_UPLOADS'] ?? 2000);
const KiB = 1024;
const MiB = 2 ** 20;

interface Answer {
  status: number;
  code: string | undefined;
  location: string;
  range: string | null;
}

async function ask(
  url: string,
  method: string,
  { body, type }: { body?: Uint8Array | AsyncIterable<Uint8Array>; type?: string } = {},
): Promise<Answer> {
  const sent = body === undefined ? undefined : body instanceof Uint8Array ? new Uint8Array(body) : ReadableStream.from(body);
  const response = await fetch(url, {
    method,
    headers: { authorization: AUTHORIZATION, ...(type === undefined ? {} : { 'content-type': type }) },
    ...(sent === undefined ? {} : { body: sent, duplex: 'half' as const }),
  });
  const text = await response.text();
  const code =
    response.status >= 400 && text.startsWith('{') ? (JSON.parse(text) as { errors: { code: string }[] }).errors[0]?.code : undefined;
  return { status: response.status, code, location: response.headers.get('location') ?? '', range: response.headers.get('range') };
}

const blobOf = (seed: string, size: number): Content => content('application/octet-stream', randomBytes(seed, size));

/** A body whose length its request does not say. */
async function* streamed({ bytes }: Content): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 2 ** 16) yield bytes.subarray(at, at + 2 ** 16);
}

test(`${OPEN_UPLOADS} open uploads: each keeps its position, none is slowed down by the others, and memory does not grow`, async (t) => {
  await using world = await startHosted();
  const { url } = world.registry;
  const base = `${url}/v2/${REPOSITORY}/blobs/uploads/`;
  const before = await world.registry.memory();
  const locations: string[] = [];
  let next = 0;
  await Promise.all(
    Array.from({ length: 32 }, async () => {
      while (next++ < OPEN_UPLOADS) {
        const { status, location } = await ask(base, 'POST');
        assert.equal(status, 202);
        locations.push(location);
      }
    }),
  );
  const grown = (await world.registry.memory()).anonymous - before.anonymous;
  t.diagnostic(`${Math.round(grown / MiB)} MiB more memory`);
  assert.ok(grown < 40 * MiB + 6 * KiB * OPEN_UPLOADS, `${grown} bytes more`);
  const blob = blobOf('one of many', 100_000);
  for (const location of [locations[0], locations[OPEN_UPLOADS / 2], locations.at(-1)]) {
    const upload = `${url}${location}`;
    assert.equal((await ask(upload, 'PATCH', { body: blob.bytes.subarray(0, 40_000) })).status, 202);
    assert.equal((await ask(upload, 'GET')).range, '0-39999');
    assert.equal((await ask(`${upload}?digest=${blob.digest}`, 'PUT', { body: blob.bytes.subarray(40_000) })).status, 201);
    assert.deepEqual(
      [(await ask(upload, 'GET')).code, (await ask(upload, 'PATCH', { body: blob.bytes })).code],
      ['BLOB_UPLOAD_UNKNOWN', 'BLOB_UPLOAD_UNKNOWN'],
    );
  }
});

test('a manifest of 10,000 stored layers is accepted; one with 10,000 missing layers, or one that names itself, is refused', async () => {
  await using world = await startHosted();
  const { url } = world.registry;
  const image = makeImage({ seed: 'many', architectures: ['amd64'], layers: [1000] });
  await pushImage(url, REPOSITORY, '1', image, AUTHORIZATION);
  const document = JSON.parse(image.root.bytes.toString()) as { layers: object[] };
  const put = (reference: string, bytes: Buffer, type = MANIFEST) =>
    ask(`${url}/v2/${REPOSITORY}/manifests/${reference}`, 'PUT', { body: bytes, type });
  const layers = Array.from({ length: 10_000 }, (_, index) => ({ ...document.layers[0], annotations: { index: String(index) } }));
  const many = Buffer.from(JSON.stringify({ ...document, layers }));
  assert.equal((await put('many', many)).status, 201);
  assert.equal(sha256(Buffer.from(await (await fetch(`${url}/v2/${REPOSITORY}/manifests/many`)).arrayBuffer())), sha256(many));
  const missing = layers.map((layer, index) => ({ ...layer, digest: sha256(Buffer.from(String(index))) }));
  const refused = await put('missing', Buffer.from(JSON.stringify({ ...document, layers: missing })));
  assert.deepEqual([refused.status, refused.code], [404, 'MANIFEST_BLOB_UNKNOWN']);
  // The digest of what names itself cannot be known: a client can only claim one.
  const claimed = sha256(Buffer.from('itself'));
  const itself = Buffer.from(
    JSON.stringify({ schemaVersion: 2, mediaType: INDEX, manifests: [{ mediaType: INDEX, digest: claimed, size: 1000 }] }),
  );
  assert.deepEqual(
    [(await put('itself', itself, INDEX)).code, (await put(claimed, itself, INDEX)).code],
    ['MANIFEST_BLOB_UNKNOWN', 'DIGEST_INVALID'],
  );
  for (const reference of ['missing', 'itself', claimed]) {
    assert.equal((await fetch(`${url}/v2/${REPOSITORY}/manifests/${reference}`)).status, 404, reference);
  }
});

test('with a full disk, a push gets a 503 and leaves no data, and stored images can be pulled', async () => {
  await using volume = await smallVolume(24);
  const directory = join(volume.path, 'data');
  await using world = await startHosted({ storage: { filesystem: { directory } } });
  const { url } = world.registry;
  const base = `${url}/v2/${REPOSITORY}`;
  const image = makeImage({ seed: 'before', architectures: ['amd64'] });
  await pushImage(url, REPOSITORY, '1', image, AUTHORIZATION);
  const large = blobOf('large', 32 * MiB);
  const room = await volume.room();
  const { location } = await ask(`${base}/blobs/uploads/`, 'POST');
  const attempts = [
    () => ask(`${url}${location}`, 'PATCH', { body: streamed(large) }),
    () => ask(`${url}${location}`, 'PATCH', { body: large.bytes }),
    () => ask(`${url}${location}?digest=${large.digest}`, 'PUT', { body: large.bytes }),
    () => ask(`${base}/blobs/uploads/?digest=${large.digest}`, 'POST', { body: large.bytes }),
  ];
  for (const attempt of attempts) {
    const { status, code } = await attempt();
    assert.deepEqual([status, code], [503, 'UNAVAILABLE']);
    assert.ok((await volume.room()) > room - MiB, 'what was written is gone');
    assert.equal((await fetch(`${base}/blobs/${large.digest}`)).status, 404);
  }
  await volume.fill();
  const manifest = Buffer.from(
    JSON.stringify({ ...(JSON.parse(image.root.bytes.toString()) as object), annotations: { full: 'x'.repeat(100_000) } }),
  );
  assert.equal((await ask(`${base}/manifests/2`, 'PUT', { body: manifest, type: MANIFEST })).status, 503);
  assert.equal((await fetch(`${base}/manifests/2`)).status, 404);
  assert.equal((await fetch(`${base}/manifests/1`)).headers.get('docker-content-digest'), image.root.digest);
  assert.deepEqual(
    (await readdir(directory, { recursive: true })).filter((path) => path.includes('upload-')),
    [],
    'no temporary file is left',
  );
});

/** Pushes to an S3 bucket that refuses the requests selected by `refuses`, with every possible S3 error. */
async function assertRefused(s3: ScriptedS3, refuses: (request: S3Request) => boolean): Promise<void> {
  const storage = { s3: { endpoint: s3.url, bucket: 'images', region: 'r', accessKeyId: 'a', secretAccessKey: 's' } };
  await using world = await startHosted({ storage });
  const base = `${world.registry.url}/v2/${REPOSITORY}/blobs`;
  const blob = blobOf('refused', 12 * MiB);
  s3.behave = (request) => (refuses(request) ? s3Error(507, 'InsufficientStorage') : undefined);
  const { location } = await ask(`${base}/uploads/`, 'POST');
  const upload = `${world.registry.url}${location}`;
  const { status, code } = await ask(upload, 'PATCH', { body: streamed(blob) });
  assert.deepEqual([status, code], [503, 'UNAVAILABLE']);
  assert.equal((await ask(upload, 'GET')).range, '0-0', 'nothing of it counts');
  assert.equal((await ask(`${base}/${blob.digest}`, 'GET')).status, 404);
  assert.deepEqual(
    [...s3.objects.keys()].filter((key) => !key.endsWith('/start')),
    [],
    'nothing of it is stored',
  );
  // The same upload, once S3 takes it.
  s3.behave = () => undefined;
  assert.equal((await ask(upload, 'PATCH', { body: streamed(blob) })).status, 202);
  assert.equal((await ask(`${upload}?digest=${blob.digest}`, 'PUT')).status, 201);
  const stored = s3.objects.get(`v1/blobs/sha256/${blob.digest.slice(7, 9)}/${blob.digest.slice(7)}`);
  assert.equal(sha256(stored?.bytes ?? Buffer.alloc(0)), blob.digest);
}

test('if S3 refuses one part, the upload keeps its position, its parts are aborted, and it can continue', async () => {
  await using s3 = await startScriptedS3();
  await assertRefused(s3, ({ query }) => query.get('partNumber') === '2');
  const ended = s3.requests.filter(({ method, query }) => method === 'DELETE' && query.has('uploadId'));
  assert.ok(ended.length > 0, 'the parts were given up');
});

test('with a full bucket, an upload keeps its position, and can continue once there is room', async () => {
  await using s3 = await startScriptedS3();
  await assertRefused(s3, ({ method, query, key }) => query.has('uploads') && method === 'POST' && key !== '');
});
