import assert from 'node:assert/strict';
import { test } from 'node:test';
import { digestOf } from '../oci/digest.ts';
import { isOciError } from '../oci/error.ts';
import { createBlobTable } from './blob-table.ts';

const digests = (count: number, algorithm: 'sha256' | 'sha512') =>
  Array.from({ length: count }, (_, index) => digestOf(Buffer.from(`${index}`), algorithm)).sort();

test('every blob is found by its digest, of either algorithm, with the values stored for it', () => {
  const table = createBlobTable();
  const all = [...digests(5000, 'sha256'), ...digests(1500, 'sha512')];
  for (const [index, digest] of all.entries()) table.add(digest, index, index * 1000);
  assert.equal(table.count(), all.length);
  assert.equal(
    table.bytes(),
    all.reduce((sum, _, index) => sum + index, 0),
  );
  for (const [index, digest] of all.entries()) {
    assert.equal(table.find(digest), index);
    assert.equal(table.digest(index), digest);
    assert.deepEqual([table.size(index), table.modified(index)], [index, index * 1000]);
  }
  assert.equal(table.find(digestOf(Buffer.from('absent'))), -1);
  assert.equal(table.find(digestOf(Buffer.from('absent'), 'sha512')), -1);
});

test('an empty table finds nothing', () => {
  assert.equal(createBlobTable().find(digestOf(Buffer.from('x'))), -1);
});

test('a store that lists out of order is an error, never an absence', () => {
  const [first, second] = digests(2, 'sha256');
  const [long] = digests(1, 'sha512');
  assert.ok(first !== undefined && second !== undefined && long !== undefined);
  const refused = (error: unknown) => isOciError(error, 'UNAVAILABLE');
  for (const [one, other] of [
    [second, first],
    [first, first],
    [long, first],
  ] as const) {
    const table = createBlobTable();
    table.add(one, 1, 0);
    assert.throws(() => table.add(other, 1, 0), refused);
  }
});
