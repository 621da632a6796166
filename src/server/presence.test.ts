import assert from 'node:assert/strict';
import { open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { temporaryDirectory } from '../../test/support/temporary.ts';
import type { FileSlice } from '../io/slice.ts';
import { createPresence } from './presence.ts';
import type { FileSender } from './send-file.ts';

const MiB = 2 ** 20;
const directory = await temporaryDirectory();
after(() => directory[Symbol.asyncDispose]());

/** A sender to which the first `inMemory` bytes of each file are in memory. */
function watchedSender(inMemory = Infinity) {
  const checks: { position: number; count: number }[] = [];
  const sender = {
    ready({ position }: FileSlice, count: number) {
      checks.push({ position, count });
      return position + count <= inMemory ? count : 0;
    },
  } as FileSender;
  return { sender, checks };
}

async function sliceOf(name: string) {
  const path = join(directory.path, name);
  await writeFile(path, name);
  const file = await open(path);
  after(() => file.close());
  return (position: number): FileSlice => ({ file, position, length: 64 * MiB - position });
}

test('readers of one file share its checks, for a short time, and each check covers more', async () => {
  const { sender, checks } = watchedSender();
  const slice = await sliceOf('shared');
  const [one, other] = [createPresence(sender), createPresence(sender)];
  assert.equal(one.ready(slice(0)), MiB);
  assert.equal(other.ready(slice(MiB / 2)), MiB / 2, 'known by the other reader');
  assert.equal(one.ready(slice(MiB)), 2 * MiB);
  assert.deepEqual(checks, [
    { position: 0, count: MiB },
    { position: MiB, count: 2 * MiB },
  ]);
  await sleep(150);
  assert.equal(other.ready(slice(MiB)), MiB, 'checked again, since pages may have been evicted');
  assert.equal(checks.length, 3);
});

test('where not everything is in memory, less is checked', async () => {
  const { sender, checks } = watchedSender(4 * MiB);
  const slice = await sliceOf('partly');
  const presence = createPresence(sender);
  assert.equal(presence.ready(slice(0)), MiB);
  assert.equal(presence.ready(slice(MiB)), 2 * MiB);
  assert.equal(presence.ready(slice(3 * MiB)), MiB, 'of 4 MiB one is in memory');
  assert.equal(presence.ready(slice(4 * MiB)), 0);
  assert.equal(checks.length, 6);
});

test('files do not share their checks', async () => {
  const { sender, checks } = watchedSender();
  const presence = createPresence(sender);
  const [one, other] = [await sliceOf('one'), await sliceOf('other')];
  presence.ready(one(0));
  presence.ready(other(0));
  assert.equal(checks.length, 2);
});
