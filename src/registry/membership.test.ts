import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BLOB_MEDIA_TYPE } from '../oci/descriptor.ts';
import { digestOf } from '../oci/digest.ts';
import { parseRepository } from '../oci/reference.ts';
import { memberKey } from '../store/keys.ts';
import { createMembership } from './membership.ts';
import type { Records } from './records.ts';

test('a record that upstream confirms is written once an hour: it may have been pruned, with its blob', (context) => {
  context.mock.timers.enable({ apis: ['Date'], now: 0 });
  const written: string[] = [];
  const records: Records = {
    read: () => Promise.resolve(undefined),
    write: (key) => void written.push(key),
    pending: () => 0,
    flush: () => Promise.resolve(),
  };
  const repository = parseRepository('hub/app');
  const descriptor = { digest: digestOf(Buffer.from('x')), mediaType: BLOB_MEDIA_TYPE, size: 1 };
  const members = createMembership(records);
  for (let minute = 0; minute < 125; minute++) {
    members.add(repository, descriptor);
    context.mock.timers.tick(60_000);
  }
  assert.deepEqual(
    written,
    Array.from({ length: 3 }, () => memberKey(repository, descriptor.digest)),
  );
});
