import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BLOB_MEDIA_TYPE, OCI_MANIFEST } from '../oci/descriptor.ts';
import { digestOf, type Digest } from '../oci/digest.ts';
import { parseRepository, type Repository } from '../oci/reference.ts';
import { memberKey } from '../store/keys.ts';
import { createAccessRecords, type AccessRecords } from './access.ts';
import { createPublicBlobs, sharingPublicBlobs } from './public-blobs.ts';
import type { RecordStore } from './record-store.ts';

const hub = parseRepository('hub/debian');
const python = parseRepository('hub/python');
const corp = parseRepository('corp/app');
const layer = { digest: digestOf(Buffer.from('layer')), mediaType: BLOB_MEDIA_TYPE, size: 5 };
const { signal } = new AbortController();

/** Access records of a registry that has credentials for `corp`, over a store that is a map. */
function start(stored = new Map<string, unknown>()): { access: AccessRecords; stored: Map<string, unknown> } {
  const records: RecordStore = {
    read: (key) => Promise.resolve(stored.get(key)),
    put: (key, value) => void stored.set(key, value),
    mark: () => assert.fail('an access record has a value'),
    remove: () => assert.fail('access records stay'),
    pending: () => 0,
    flush: () => Promise.resolve(),
  };
  const isPublic = (repository: Repository): boolean => !repository.startsWith('corp/');
  return { access: sharingPublicBlobs(createAccessRecords(records), createPublicBlobs(), isPublic), stored };
}

async function noteManifest(access: AccessRecords, repository: Repository, layers: { digest: Digest; size: number }[]): Promise<void> {
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_MANIFEST, layers }));
  await access.noteManifest(repository, { digest: digestOf(bytes), mediaType: OCI_MANIFEST, size: bytes.length }, bytes);
}

test('promise 12: a manifest proves access to the public blobs that it names, and the record is written at once', async () => {
  const { access, stored } = start();
  access.grant(hub, layer);
  assert.equal(await access.find(python, layer.digest, signal), undefined, 'no manifest of the repository names it yet');
  await noteManifest(access, python, [layer]);
  assert.ok(stored.has(memberKey(python, layer.digest)), 'another replica can serve it too');
  assert.deepEqual(await start(stored).access.find(python, layer.digest, signal), layer, 'after a restart, too');
});

test('promise 12: a blob that becomes public after a manifest has named it is served as well', async () => {
  const { access } = start();
  await noteManifest(access, python, [layer]);
  assert.equal(await access.find(python, layer.digest, signal), undefined);
  access.grant(hub, layer);
  assert.deepEqual(await access.find(python, layer.digest, signal), layer);
});

test('promise 12: a blob that only repositories with credentials have is proved by no manifest', async () => {
  const { access, stored } = start();
  access.grant(corp, layer);
  await noteManifest(access, hub, [layer]);
  assert.equal(await access.find(hub, layer.digest, signal), undefined);
  assert.deepEqual([...stored.keys()], [memberKey(corp, layer.digest)]);
});

test('promise 12: a manifest that states another size than the blob has proves nothing', async () => {
  const { access } = start();
  access.grant(hub, layer);
  await noteManifest(access, python, [{ ...layer, size: 6 }]);
  assert.equal(await access.find(python, layer.digest, signal), undefined);
});

test('promise 12: a blob whose public record was written before a restart is public once the record has been read', async () => {
  const { access, stored } = start();
  access.grant(hub, layer);
  const restarted = start(stored).access;
  await noteManifest(restarted, python, [layer]);
  assert.equal(await restarted.find(python, layer.digest, signal), undefined);
  await restarted.find(hub, layer.digest, signal);
  assert.deepEqual(await restarted.find(python, layer.digest, signal), layer);
});
