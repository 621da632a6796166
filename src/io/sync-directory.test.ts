import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { temporaryDirectory } from '../../test/support/temporary.ts';
import { syncDirectory } from './sync-directory.ts';

test('callers before a sync begins share it; later callers get one that begins later', async () => {
  await using directory = await temporaryDirectory();
  const first = syncDirectory(directory.path);
  assert.equal(syncDirectory(directory.path), first);
  await new Promise(setImmediate); // it has begun
  const second = syncDirectory(directory.path);
  assert.notEqual(second, first);
  assert.equal(syncDirectory(directory.path), second);
  await Promise.all([first, second]);
  const third = syncDirectory(directory.path);
  assert.notEqual(third, second);
  await third;
});

test('a directory that does not exist, or that cannot be synced, is not an error', async () => {
  await using directory = await temporaryDirectory();
  await syncDirectory(join(directory.path, 'gone'));
  await syncDirectory('/proc/self');
});
