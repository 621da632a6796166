import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BLOB_MEDIA_TYPE, MANIFEST_MEDIA_TYPES } from '../oci/descriptor.ts';
import { digestOf } from '../oci/digest.ts';
import { parseRepository } from '../oci/reference.ts';
import { isManifestRecord, memberKey } from '../store/keys.ts';
import { createMembership } from './access.ts';
import type { Records } from './record-store.ts';

const digest = digestOf(Buffer.from('x'));
const repository = parseRepository('hub/app');

function recordsInto(written: Map<string, unknown> | string[]): Records {
  return {
    read: () => Promise.resolve(undefined),
    write: (key, value) => void (Array.isArray(written) ? written.push(key) : written.set(key, value)),
    pending: () => 0,
    flush: () => Promise.resolve(),
  };
}

test('a record that upstream confirms is written once an hour: it may have been pruned, with its blob', (context) => {
  context.mock.timers.enable({ apis: ['Date'], now: 0 });
  const written: string[] = [];
  const descriptor = { digest, mediaType: BLOB_MEDIA_TYPE, size: 1 };
  const members = createMembership(recordsInto(written));
  for (let minute = 0; minute < 125; minute++) {
    members.add(repository, descriptor);
    context.mock.timers.tick(60_000);
  }
  assert.deepEqual(
    written,
    Array.from({ length: 3 }, () => memberKey(repository, descriptor.digest)),
  );
});

test('the record of a manifest is longer than that of any blob: a listing tells them apart', () => {
  const lengthOf = (mediaType: string, size: number): number => {
    const written = new Map<string, unknown>();
    createMembership(recordsInto(written)).add(repository, { digest, mediaType, size });
    return JSON.stringify(written.get(memberKey(repository, digest))).length;
  };
  assert.equal(isManifestRecord(lengthOf(BLOB_MEDIA_TYPE, 999_999_999_999_999)), false);
  for (const mediaType of MANIFEST_MEDIA_TYPES) assert.equal(isManifestRecord(lengthOf(mediaType, 1)), true, mediaType);
});

test('a manifest that upstream gives as a blob too stays a manifest', async () => {
  const members = createMembership(recordsInto([]));
  const manifest = { digest, mediaType: MANIFEST_MEDIA_TYPES[0] ?? '', size: 1 };
  members.add(repository, { ...manifest, mediaType: BLOB_MEDIA_TYPE });
  members.add(repository, manifest);
  members.add(repository, { ...manifest, mediaType: BLOB_MEDIA_TYPE });
  assert.deepEqual(await members.find(repository, digest, new AbortController().signal), manifest);
});
