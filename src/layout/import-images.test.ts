import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { link, mkdir, mkdtemp, open, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { openS3 } from '../../test/support/open-s3.ts';
import { startVersitygw } from '../../test/support/versitygw.ts';
import { readAll } from '../io/body.ts';
import { digestOf, type Digest } from '../oci/digest.ts';
import { parseRepository, parseTag } from '../oci/reference.ts';
import { blobKey, memberKey, tagKey } from '../store/keys.ts';
import type { Store } from '../store/store.ts';
import { memory as memoryStore } from '../testing/memory-store.ts';
import { importImages, type ImportResult } from './import-images.ts';
import { createTarWriter } from './tar-file.ts';

const signal = new AbortController().signal;
const REPOSITORY = parseRepository('hub/app');
const TAG = parseTag('1');
const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';

interface Layout {
  files: Map<string, Buffer>;
  root: Digest;
  layer: Digest;
}

function pathOf(digest: string): string {
  return `blobs/${digest.replace(':', '/')}`;
}

/** An image of one layer, as the files of a layout. */
function makeLayout(size = 3_000_000): Layout {
  const [config, content] = [Buffer.from('{"os":"linux","architecture":"amd64"}'), Buffer.alloc(size, 'layer')];
  const describe = (bytes: Buffer, mediaType: string) => ({ mediaType, digest: digestOf(bytes), size: bytes.length });
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MANIFEST,
      config: describe(config, 'application/vnd.oci.image.config.v1+json'),
      layers: [describe(content, 'application/vnd.oci.image.layer.v1.tar')],
    }),
  );
  const entry = { ...describe(manifest, MANIFEST), annotations: { 'org.opencontainers.image.ref.name': 'hub.example/app:1' } };
  const files = new Map([
    ['oci-layout', Buffer.from('{"imageLayoutVersion":"1.0.0"}')],
    ['index.json', Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [entry] }))],
    ...[manifest, config, content].map((bytes): [string, Buffer] => [pathOf(digestOf(bytes)), bytes]),
  ]);
  return { files, root: digestOf(manifest), layer: digestOf(content) };
}

async function importFiles(
  files: Iterable<readonly [string, Buffer]>,
  store: Store = memoryStore(),
  progress: (done: number) => void = () => undefined,
): Promise<ImportResult> {
  const directory = await mkdtemp(join(tmpdir(), 'import-'));
  try {
    const path = join(directory, 'a.tar');
    const file = await open(path, 'w');
    const tar = createTarWriter(file);
    for (const [name, bytes] of files) await tar.addBytes(name, bytes);
    await tar.end();
    await file.close();
    return await importImages({ file: path, store, signal, progress, locate: () => ({ repository: REPOSITORY, reference: TAG }) });
  } finally {
    await rm(directory, { recursive: true });
  }
}

test('an image of a layout is stored with its names and everything that it needs', async () => {
  const store = memoryStore();
  const { files, root, layer } = makeLayout();
  const { images, blobs, known } = await importFiles(files, store);
  assert.deepEqual(images, [{ name: 'hub.example/app:1', digest: root, outcome: 'imported', missing: [] }]);
  assert.deepEqual([blobs, known], [2, 0]);
  for (const key of [blobKey(root), blobKey(layer), memberKey(REPOSITORY, root), memberKey(REPOSITORY, layer), tagKey(REPOSITORY, TAG)])
    assert.ok(await store.stat(key, { signal }), key);
});

test('wrong bytes are not stored, and the image that names them is not served', async () => {
  const store = memoryStore();
  const { files, layer } = makeLayout();
  files.set(pathOf(layer), Buffer.alloc(3_000_000, 'other'));
  const { images, corrupt } = await importFiles(files, store);
  assert.deepEqual(corrupt, [layer]);
  assert.deepEqual(
    images.map(({ outcome, missing }) => [outcome, missing]),
    [['failed', [layer]]],
  );
  assert.equal(await store.stat(blobKey(layer), { signal }), undefined);
  assert.equal(await store.stat(tagKey(REPOSITORY, TAG), { signal }), undefined);
});

test('an empty entry is checked against its digest like any other', async () => {
  const store = memoryStore();
  const { files, layer } = makeLayout();
  files.set(pathOf(layer), Buffer.alloc(0));
  const { images, corrupt } = await importFiles(files, store);
  assert.deepEqual(corrupt, [layer]);
  assert.equal(images[0]?.outcome, 'failed');
  assert.equal(await store.stat(blobKey(layer), { signal }), undefined);
});

test('an S3 store that takes a blob in parts gets wrong bytes no more than a store that takes it whole', async () => {
  await using server = await startVersitygw();
  const credentials = () => Promise.resolve(server);
  const store = openS3({ url: server.endpoint }, { bucket: server.bucket, region: server.region, credentials, partSize: 5 * 2 ** 20 });
  const { files, layer } = makeLayout(12_000_000);
  const content = files.get(pathOf(layer)) ?? assert.fail();
  files.set(pathOf(layer), Buffer.alloc(12_000_000, 'other'));
  assert.deepEqual((await importFiles(files, store)).corrupt, [layer]);
  assert.equal(await store.stat(blobKey(layer), { signal }), undefined);

  files.set(pathOf(layer), content);
  const progress: number[] = [];
  const { images } = await importFiles(files, store, (done) => progress.push(done));
  assert.equal(images[0]?.outcome, 'imported');
  const found = (await store.read(blobKey(layer), { signal })) ?? assert.fail();
  assert.equal(digestOf((await readAll(found.body, 12_000_000)) ?? assert.fail()), layer);
  assert.ok((progress.at(-1) ?? 0) >= 12_000_000 && progress.every((done, index) => done > (progress[index - 1] ?? 0)), String(progress));
  await store.close();
});

test('an image without one of its blobs is not served, and the blob is named', async () => {
  const store = memoryStore();
  const { files, layer } = makeLayout();
  files.delete(pathOf(layer));
  const { images } = await importFiles(files, store);
  assert.deepEqual([images[0]?.outcome, images[0]?.missing], ['failed', [layer]]);
  assert.equal(await store.stat(tagKey(REPOSITORY, TAG), { signal }), undefined);
});

test('an import that is run again stores only what is missing', async () => {
  const store = memoryStore();
  const { files, layer } = makeLayout();
  await importFiles(files, store);
  await store.remove(blobKey(layer), { signal });
  const { blobs, known } = await importFiles(files, store);
  assert.deepEqual([blobs, known], [2, 1]);
});

test('files that are no part of the layout change nothing, whatever their names say', async () => {
  const { files } = makeLayout();
  const others = ['../outside', '/etc/absolute', 'blobs/sha256/../../up', 'blobs/md5/abc', 'README'].map(
    (name) => [name, Buffer.from('other')] as const,
  );
  const { images } = await importFiles([...others, ...files]);
  assert.equal(images[0]?.outcome, 'imported');
});

test('an index with only some of its platforms is imported, and the absent ones are named', async () => {
  const { files, root } = makeLayout();
  const absent = digestOf(Buffer.from('absent'));
  const manifests = [
    { mediaType: MANIFEST, digest: root, size: 1, platform: { os: 'linux', architecture: 'amd64' } },
    { mediaType: MANIFEST, digest: absent, size: 1, platform: { os: 'linux', architecture: 'arm64' } },
  ];
  const index = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests }));
  files.set(pathOf(digestOf(index)), index);
  const entry = { mediaType: 'application/vnd.oci.image.index.v1+json', digest: digestOf(index), size: index.length };
  files.set('index.json', Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [entry] })));
  const { images } = await importFiles(files);
  assert.deepEqual([images[0]?.outcome, images[0]?.missing], ['sparse', ['linux/arm64']]);
});

test('a file that is not an image layout is refused with the reason', async () => {
  const { files } = makeLayout();
  const cases: [RegExp, (copy: Map<string, Buffer>) => Iterable<readonly [string, Buffer]>][] = [
    [/version "2.0.0"/, (copy) => copy.set('oci-layout', Buffer.from('{"imageLayoutVersion":"2.0.0"}'))],
    [/holds no oci-layout/, (copy) => [...copy].filter(([name]) => name !== 'oci-layout')],
    [/holds no index.json/, (copy) => [...copy].filter(([name]) => name !== 'index.json')],
    [/docker-archive/, () => [['manifest.json', Buffer.from('[]')]]],
    [/index.json twice/, (copy) => [...copy, ['index.json', Buffer.from('{}')]]],
    [/not JSON/, (copy) => copy.set('index.json', Buffer.from('{'))],
    [/names no image/, (copy) => copy.set('index.json', Buffer.from('{"schemaVersion":2,"manifests":[]}'))],
    [/more than the 4194304/, (copy) => copy.set('index.json', Buffer.alloc(5_000_000, ' '))],
  ];
  for (const [message, change] of cases) {
    await assert.rejects(importFiles(change(new Map(files))), { code: 'MANIFEST_INVALID', message }, String(message));
  }
});

test('a link in place of a blob is refused: its target may be any file', async () => {
  const { files, layer } = makeLayout();
  const directory = await mkdtemp(join(tmpdir(), 'import-'));
  try {
    for (const [name, bytes] of files) {
      await mkdir(dirname(join(directory, 'layout', name)), { recursive: true });
      await writeFile(join(directory, 'layout', name), bytes);
    }
    await rm(join(directory, 'layout', pathOf(layer)));
    for (const make of [symlink, link]) {
      const target = join(directory, 'layout', pathOf(layer));
      await make(make === symlink ? '/etc/passwd' : join(directory, 'layout', 'oci-layout'), target);
      await promisify(execFile)('tar', [
        '-cf',
        join(directory, 'a.tar'),
        '-C',
        join(directory, 'layout'),
        'oci-layout',
        'index.json',
        'blobs',
      ]);
      const store = memoryStore();
      const locate = () => ({ repository: REPOSITORY, reference: TAG });
      const imported = importImages({ file: join(directory, 'a.tar'), store, signal, locate });
      await assert.rejects(imported, { code: 'MANIFEST_INVALID', message: /Link, not a file/ });
      assert.equal(await store.stat(tagKey(REPOSITORY, TAG), { signal }), undefined);
      await rm(target);
    }
  } finally {
    await rm(directory, { recursive: true });
  }
});

test('of two entries with the name of one blob, wrong bytes are never stored', async () => {
  const { files, layer } = makeLayout();
  const wrong = [pathOf(layer), Buffer.alloc(3_000_000, 'wrong')] as const;
  for (const entries of [
    [wrong, ...files],
    [...files, wrong],
  ]) {
    const store = memoryStore();
    const { images } = await importFiles(entries, store);
    const isStored = (await store.stat(blobKey(layer), { signal })) !== undefined;
    assert.equal(images[0]?.outcome, isStored ? 'imported' : 'failed');
    if (!isStored) continue;
    const found = (await store.read(blobKey(layer), { signal })) ?? assert.fail();
    assert.equal(digestOf((await readAll(found.body, 4_000_000)) ?? assert.fail()), layer);
  }
});

test('a file of 100,000 entries is imported like any other', async () => {
  const { files } = makeLayout();
  const many = Array.from({ length: 100_000 }, (_, n) => [`file-${n}`, Buffer.alloc(0)] as const);
  const { images } = await importFiles([...many, ...files]);
  assert.equal(images[0]?.outcome, 'imported');
});
