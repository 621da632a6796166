import assert from 'node:assert/strict';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { readAll } from '../io/body.ts';
import { OCI_MANIFEST } from '../oci/descriptor.ts';
import { digestOf, type Digest } from '../oci/digest.ts';
import { parseRepository, parseTag } from '../oci/reference.ts';
import { memberKey, referrerListKey, tagKey } from '../store/keys.ts';
import type { Store } from '../store/store.ts';
import { memory } from '../testing/memory-store.ts';
import { exportImages } from './export-images.ts';
import { importImages } from './import-images.ts';
import { createStoreReader } from './store-reader.ts';
import { createTarWriter } from './tar-file.ts';

const signal = new AbortController().signal;
const REPOSITORY = parseRepository('hub/app');
const TAG = parseTag('1');
const TYPE = 'application/vnd.example.signature';

interface Written {
  bytes: Buffer;
  digest: Digest;
}

function written(content: object): Written {
  const bytes = Buffer.from(JSON.stringify(content));
  return { bytes, digest: digestOf(bytes) };
}

const describe = ({ bytes, digest }: Written, mediaType = OCI_MANIFEST) => ({ mediaType, digest, size: bytes.length });

const config = written({ os: 'linux', architecture: 'amd64' });
const CONFIG = 'application/vnd.oci.image.config.v1+json';
const image = written({ schemaVersion: 2, mediaType: OCI_MANIFEST, config: describe(config, CONFIG), layers: [] });

function referrer(subject: Written, name: string): Written {
  const annotations = { name };
  const more = { artifactType: TYPE, config: describe(config, CONFIG), layers: [], annotations };
  return written({ schemaVersion: 2, mediaType: OCI_MANIFEST, ...more, subject: describe(subject) });
}

const signature = referrer(image, 'signature');
const countersignature = referrer(signature, 'countersignature');
const stranger = referrer(written({ other: true }), 'of an image that is not there');

/** A layout in which referrers come in any order, before what they refer to as well. */
async function importLayout(store: Store, referrers: readonly Written[]) {
  const directory = await mkdtemp(join(tmpdir(), 'referrers-'));
  try {
    const path = join(directory, 'a.tar');
    const file = await open(path, 'w');
    const tar = createTarWriter(file);
    const named = { ...describe(image), annotations: { 'org.opencontainers.image.ref.name': 'hub.example/app:1' } };
    await tar.addBytes('oci-layout', Buffer.from('{"imageLayoutVersion":"1.0.0"}'));
    await tar.addBytes('index.json', written({ schemaVersion: 2, manifests: [...referrers.map((one) => describe(one)), named] }).bytes);
    for (const { bytes, digest } of [config, image, ...referrers]) await tar.addBytes(`blobs/${digest.replace(':', '/')}`, bytes);
    await tar.end();
    await file.close();
    const locate = ({ name }: { name: string | undefined }) =>
      name === undefined ? undefined : { repository: REPOSITORY, reference: TAG };
    return await importImages({ file: path, store, signal, locate });
  } finally {
    await rm(directory, { recursive: true });
  }
}

async function recordOf(store: Store, subject: Written): Promise<{ imported?: boolean; index: { manifests: object[] } }> {
  const found = (await store.read(referrerListKey(REPOSITORY, subject.digest), { signal })) ?? assert.fail('there is a list');
  return JSON.parse(String(await readAll(found.body, 100_000))) as Awaited<ReturnType<typeof recordOf>>;
}

test('referrers in a file are listed with their subjects, with the fields by which clients filter, and stay listed', async () => {
  const store = memory();
  const result = await importLayout(store, [countersignature, signature, stranger]);
  assert.equal(result.referrers, 2);
  assert.deepEqual(
    result.images.map(({ outcome }) => outcome),
    ['failed', 'imported'],
    'what refers to nothing in the file is an image without a name',
  );
  const expected = (one: Written, name: string) => ({ ...describe(one), artifactType: TYPE, annotations: { name } });
  const list = await recordOf(store, image);
  assert.deepEqual([list.imported, list.index.manifests], [true, [expected(signature, 'signature')]]);
  assert.deepEqual((await recordOf(store, signature)).index.manifests, [expected(countersignature, 'countersignature')]);
  assert.deepEqual((await recordOf(store, countersignature)).index.manifests, [], 'nothing refers to it');
  assert.ok((await store.stat(memberKey(REPOSITORY, countersignature.digest), { signal })) !== undefined);
  assert.ok((await store.stat(tagKey(REPOSITORY, TAG), { signal })) !== undefined);
  const again = await importLayout(store, [signature]);
  assert.equal(again.referrers, 1);
  assert.equal((await recordOf(store, image)).index.manifests.length, 1, 'it is listed once');
});

test('an export with referrers has those of referrers too, and imports into the same lists', async () => {
  const store = memory();
  await importLayout(store, [signature, countersignature]);
  const directory = await mkdtemp(join(tmpdir(), 'referrers-'));
  try {
    const output = join(directory, 'b.tar');
    const images = [{ name: 'hub.example/app:1', repository: REPOSITORY, reference: TAG }];
    const own = { images, reader: createStoreReader(store), output, platforms: 'all', signal } as const;
    const without = await exportImages({ ...own, referrers: false });
    assert.deepEqual([without.manifests, without.referrers], [1, 0]);
    const exported = await exportImages({ ...own, referrers: true });
    assert.deepEqual([exported.images, exported.manifests, exported.referrers], [1, 3, 2]);
    const copy = memory();
    const locate = () => ({ repository: REPOSITORY, reference: TAG });
    assert.equal((await importImages({ file: output, store: copy, signal, locate })).referrers, 2);
    for (const subject of [image, signature]) {
      assert.deepEqual((await recordOf(copy, subject)).index, (await recordOf(store, subject)).index);
    }
  } finally {
    await rm(directory, { recursive: true });
  }
});
