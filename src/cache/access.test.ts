import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BLOB_MEDIA_TYPE, MANIFEST_MEDIA_TYPES } from '../oci/descriptor.ts';
import { digestOf } from '../oci/digest.ts';
import { parseRepository } from '../oci/reference.ts';
import { isManifestRecord, memberKey } from '../store/keys.ts';
import { createAccessRecords } from './access.ts';
import type { RecordStore } from './record-store.ts';

const digest = digestOf(Buffer.from('x'));
const repository = parseRepository('hub/app');

function recordsInto(written: Map<string, unknown> | string[]): RecordStore {
  return {
    read: () => Promise.resolve(undefined),
    put: (key, value) => void (Array.isArray(written) ? written.push(key) : written.set(key, value)),
    mark: () => assert.fail('an access record has a value'),
    remove: () => assert.fail('access records stay'),
    pending: () => 0,
    flush: () => Promise.resolve(),
  };
}

test('a record that upstream confirms is written once an hour: it may have been pruned, with its blob', () => {
  let now = 0;
  const written: string[] = [];
  const descriptor = { digest, mediaType: BLOB_MEDIA_TYPE, size: 1 };
  const access = createAccessRecords(recordsInto(written), () => now);
  for (let minute = 0; minute < 125; minute++) {
    access.grant(repository, descriptor);
    now += 60_000;
  }
  assert.deepEqual(
    written,
    Array.from({ length: 3 }, () => memberKey(repository, descriptor.digest)),
  );
});

test('the record of a manifest is longer than that of any blob, so a listing distinguishes them', () => {
  const lengthOf = (mediaType: string, size: number): number => {
    const written = new Map<string, unknown>();
    createAccessRecords(recordsInto(written)).grant(repository, { digest, mediaType, size });
    return JSON.stringify(written.get(memberKey(repository, digest))).length;
  };
  assert.equal(isManifestRecord(lengthOf(BLOB_MEDIA_TYPE, 999_999_999_999_999)), false);
  for (const mediaType of MANIFEST_MEDIA_TYPES) assert.equal(isManifestRecord(lengthOf(mediaType, 1)), true, mediaType);
});

test('a manifest that upstream also serves as a blob stays a manifest', async () => {
  const access = createAccessRecords(recordsInto([]));
  const manifest = { digest, mediaType: MANIFEST_MEDIA_TYPES[0] ?? '', size: 1 };
  access.grant(repository, { ...manifest, mediaType: BLOB_MEDIA_TYPE });
  access.grant(repository, manifest);
  access.grant(repository, { ...manifest, mediaType: BLOB_MEDIA_TYPE });
  assert.deepEqual(await access.find(repository, digest, new AbortController().signal), manifest);
});

test('the sizes of the blobs of a manifest are noted once, and prove no access', async () => {
  const bytes = Buffer.from(
    JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST_MEDIA_TYPES[0], layers: [{ mediaType: '', digest, size: 7 }] }),
  );
  const manifest = { digest: digestOf(bytes), mediaType: MANIFEST_MEDIA_TYPES[0] ?? '', size: bytes.length };
  const records = { ...recordsInto([]), read: () => Promise.resolve({ mediaType: manifest.mediaType, size: manifest.size }) };
  const access = createAccessRecords(records);
  await access.find(repository, manifest.digest, new AbortController().signal);
  assert.equal(access.recall(repository, manifest.digest)?.isNoted, false);
  await access.noteManifest(repository, manifest, bytes);
  assert.equal(access.recall(repository, manifest.digest)?.isNoted, true);
  assert.equal(access.statedSize(repository, digest), 7);
  assert.equal(access.recall(repository, digest), undefined);
  access.grant(repository, manifest);
  assert.equal(access.recall(repository, manifest.digest)?.isNoted, true, 'the upstream has confirmed the same bytes');
});
