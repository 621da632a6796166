import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { captureLog } from '../../test/support/log.ts';
import { temporaryDirectory } from '../../test/support/temporary.ts';
import { readAll } from '../io/body.ts';
import { sliceOf } from '../io/slice.ts';
import { digestOf } from '../oci/digest.ts';
import { filesystem } from '../store/filesystem/filesystem.ts';
import { blobKey } from '../store/keys.ts';
import { bytesSource, type Store } from '../store/store.ts';
import { createLocalBlobs } from './local-blobs.ts';

const MiB = 2 ** 20;
const { signal } = new AbortController();

/** The blobs of a directory, and how often its store is called. */
async function setUp() {
  const directory = await temporaryDirectory();
  const files = await filesystem({ directory: directory.path });
  const calls: string[] = [];
  const counted: Store = {
    ...files,
    stat: (...asked) => (calls.push('stat'), files.stat(...asked)),
    read: (...asked) => (calls.push('read'), files.read(...asked)),
    remove: (...asked) => (calls.push('remove'), files.remove(...asked)),
  };
  const captured = await captureLog('warn');
  const blobs = createLocalBlobs(counted, captured.log);
  async function store(bytes: Buffer) {
    const digest = digestOf(bytes);
    await files.write(blobKey(digest), bytesSource(bytes), { signal });
    return { digest, file: join(directory.path, blobKey(digest)) };
  }
  const read = async (digest: ReturnType<typeof digestOf>, range?: { start: number; end: number }) => {
    const blob = await blobs.open(digest, { range, signal });
    return blob && (await readAll(blob.body, 10 * MiB));
  };
  async function dispose(): Promise<void> {
    await files.close();
    await directory[Symbol.asyncDispose]();
  }
  return { blobs, calls, store, read, captured, [Symbol.asyncDispose]: dispose };
}

test('a warm blob is opened once, without a separate stat, and can be sent as a file', async () => {
  await using it = await setUp();
  const bytes = Buffer.alloc(3 * MiB, 'warm');
  const { digest } = await it.store(bytes);
  it.blobs.trust(digest, bytes.length);
  for (const range of [undefined, { start: 7, end: MiB }]) {
    it.calls.length = 0;
    const blob = (await it.blobs.open(digest, { range, signal })) ?? assert.fail();
    assert.deepEqual(it.calls, ['read']);
    assert.equal(blob.size, bytes.length);
    assert.ok(sliceOf(blob.body), 'it is not hashed again');
    assert.deepEqual(await readAll(blob.body, 10 * MiB), range === undefined ? bytes : bytes.subarray(7, MiB + 1));
  }
  it.calls.length = 0;
  assert.equal(await it.read(digestOf(Buffer.from('absent'))), undefined);
  assert.deepEqual(it.calls, ['read']);
});

test('promise 3: a file of a former process is verified once, by whichever request comes first', async () => {
  for (const range of [undefined, { start: 0, end: 9 }]) {
    await using it = await setUp();
    const bytes = Buffer.alloc(3 * MiB, 'former');
    const { digest } = await it.store(bytes);
    assert.deepEqual(await it.read(digest, range), range === undefined ? bytes : bytes.subarray(0, 10));
    it.calls.length = 0;
    assert.deepEqual(await it.read(digest), bytes);
    assert.deepEqual(it.calls, ['read']);
  }
});

test('promise 3: a damaged file is removed; a small one is not served at all, a large one is never served whole', async () => {
  for (const size of [300_000, 3 * MiB]) {
    await using it = await setUp();
    const bytes = Buffer.alloc(size, 'right');
    const { digest, file } = await it.store(bytes);
    it.blobs.trust(digest, size);
    assert.deepEqual(await it.read(digest), bytes);
    await delay(20); // so that the time of the change differs
    await writeFile(file, Buffer.alloc(size, 'wrong'));
    if (size <= MiB) assert.equal(await it.read(digest), undefined);
    else await assert.rejects(it.read(digest), /damaged/);
    assert.equal(await it.read(digest), undefined);
    assert.deepEqual(
      it.captured.entries().map(({ event }) => event),
      ['stored-blob-damaged'],
    );
  }
});
