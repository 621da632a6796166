import assert from 'node:assert/strict';
import { test } from 'node:test';
import { captureLog } from '../../test/support/log.ts';
import { BLOB_MEDIA_TYPE, OCI_MANIFEST } from '../oci/descriptor.ts';
import { digestOf } from '../oci/digest.ts';
import { parseRepository } from '../oci/reference.ts';
import { blobKey, memberKey } from '../store/keys.ts';
import { memory } from '../testing/memory-store.ts';
import { bytesSource } from '../store/store.ts';
import { createAccessRecords } from './access.ts';
import { createRecordStore } from './record-store.ts';
import { createRepublish } from './republish.ts';

const context = { signal: new AbortController().signal };
const repository = parseRepository('hub/app');
const blobOf = (bytes: Buffer) => ({ bytes, digest: digestOf(bytes), mediaType: BLOB_MEDIA_TYPE, size: bytes.length });
const layer = blobOf(Buffer.from('a layer'));
const foreign = blobOf(Buffer.from('a layer that is not here'));
const bytes = Buffer.from(
  JSON.stringify({ schemaVersion: 2, layers: [layer, foreign].map(({ digest, mediaType, size }) => ({ digest, mediaType, size })) }),
);
const manifest = { digest: digestOf(bytes), mediaType: OCI_MANIFEST, size: bytes.length };

async function setUp() {
  const [local, remote] = [memory(), memory()];
  const { log, ...captured } = await captureLog();
  const records = createRecordStore(remote, log);
  const arrived: string[] = [];
  const restore = createRepublish({
    local,
    remote,
    access: createAccessRecords(records),
    log,
    arrived: (digest) => void arrived.push(digest),
  });
  await local.write(blobKey(layer.digest), bytesSource(layer.bytes), context);
  return { local, remote, records, arrived, restore, captured };
}

test('an image that the store has lost but that is served from local copies is stored again, with its local blobs', async () => {
  const { local, records, remote, arrived, restore } = await setUp();
  await restore(repository, manifest, bytes);
  assert.deepEqual(arrived, [manifest.digest, layer.digest]);
  assert.ok(await local.stat(blobKey(manifest.digest), context));
  await records.flush(context.signal);
  assert.ok(await remote.stat(memberKey(repository, manifest.digest), context));
  assert.equal(
    await remote.stat(memberKey(repository, layer.digest), context),
    undefined,
    'a manifest does not prove access to what it refers to',
  );
});

test('an image that the store still has is not stored again', async () => {
  const { remote, arrived, restore } = await setUp();
  await remote.write(blobKey(manifest.digest), bytesSource(bytes), context);
  await restore(repository, manifest, bytes);
  assert.deepEqual(arrived, []);
});

test('a store that does not answer costs a line in the log', async () => {
  const { arrived, captured, restore, remote } = await setUp();
  remote.stat = () => Promise.reject(new Error('S3 is away'));
  await restore(repository, manifest, bytes);
  assert.deepEqual(arrived, []);
  assert.equal(captured.entries().length, 1);
});
