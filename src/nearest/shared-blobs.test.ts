import assert from 'node:assert/strict';
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { temporaryDirectory } from '../../test/support/temporary.ts';
import { until } from '../../test/support/until.ts';
import { discardBody, readAll } from '../io/body.ts';
import { digestOf, type Digest } from '../oci/digest.ts';
import { fileSource } from '../store/store.ts';
import { createSharedBlobs, type SharedBlobs } from './shared-blobs.ts';

const { signal } = new AbortController();
const BYTES = 1000;
const contents = [1, 2, 3, 4].map((value) => Buffer.alloc(BYTES, value));
const [first, second, third, fourth] = contents.map((bytes) => digestOf(bytes)) as [Digest, Digest, Digest, Digest];

async function keep(blobs: SharedBlobs, directory: string, bytes: Buffer): Promise<boolean> {
  const room = blobs.reserve();
  if (!room.grow(bytes.length)) return false;
  const path = join(directory, 'arriving');
  await writeFile(path, bytes);
  const source = { ...fileSource(path, bytes.length), spare: { path, handle: undefined as never } };
  await blobs.keep(digestOf(bytes), source, { from: 'upstream', room, signal });
  return true;
}

test('the least recently used blobs are removed to make room, but never a blob that is being read', async () => {
  await using directory = await temporaryDirectory();
  const gone: Digest[] = [];
  const blobs = createSharedBlobs({ directory: directory.path, maxSize: 3 * BYTES, keepMs: 60_000, gone: (digest) => gone.push(digest) });
  for (const bytes of contents.slice(0, 3)) assert.ok(await keep(blobs, directory.path, bytes));
  const reading = await blobs.open(first, undefined, signal);
  assert.ok(reading !== undefined);
  assert.ok(await keep(blobs, directory.path, contents[3] ?? Buffer.alloc(0)));
  assert.deepEqual(gone, [second]);
  assert.ok((await readAll(reading.body, BYTES))?.equals(contents[0] ?? Buffer.alloc(0)));
  const part = await blobs.open(third, { start: 10, end: 19 }, signal);
  assert.deepEqual([part?.range, (await readAll(part?.body ?? assert.fail(), BYTES))?.length], [{ start: 10, end: 19 }, 10]);
  assert.equal(await blobs.open(second, undefined, signal), undefined);
  assert.equal(blobs.used(), 3 * BYTES);
  assert.ok(!blobs.reserve().grow(4 * BYTES), 'more than the file has');
  blobs.close();
});

test('a blob without reads is removed after a time', async () => {
  await using directory = await temporaryDirectory();
  const blobs = createSharedBlobs({ directory: directory.path, maxSize: 10 * BYTES, keepMs: 1, gone: () => undefined });
  assert.ok(await keep(blobs, directory.path, contents[3] ?? Buffer.alloc(0)));
  const held = await blobs.open(fourth, undefined, signal);
  await until(async () => {
    if (held !== undefined) await discardBody(held.body);
    return (await readdir(directory.path)).length === 0;
  }, 'the file is gone');
  assert.equal(blobs.used(), 0);
  blobs.close();
});
