import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { temporaryDirectory } from '../../../test/support/temporary.ts';
import { digestOf, type Digest } from '../../oci/digest.ts';
import { acquireShared, createBufferPool } from '../../io/buffers.ts';
import { createSpoolWriter, type SpoolWriter } from './spool-writer.ts';

const MiB = 2 ** 20;
const PIECE = 100_000;
/** The first bytes that arrive are fewer. */
const FIRST = 40_000;
const bytes = randomBytes(3 * MiB + 5);
const directory = await temporaryDirectory();
after(() => directory[Symbol.asyncDispose]());
let files = 0;

/** Writes a piece of `content`, from a buffer that is overwritten once it is released. */
async function writePiece(writer: SpoolWriter, content: Buffer, position: number, hashed: boolean, end = position + PIECE): Promise<void> {
  const pool = createBufferPool(1, PIECE, { shared: true });
  const buffer = acquireShared({ ...pool, release: (released) => void released.fill(0) });
  const count = content.copy(buffer.bytes, 0, position, end);
  await writer.write(buffer.bytes.subarray(0, count), buffer, { position, hashed });
  buffer.release();
}

/** Whether `content` matches a digest if its pieces arrive in order, except for those at `late`.
 *  The file must have the bytes of `content` in any case. */
async function agrees(digest: Digest, content: Buffer, size: number | undefined, late: readonly number[] = []): Promise<boolean> {
  const path = join(directory.path, `${++files}`);
  await using file = await open(path, 'wx+');
  const writer = createSpoolWriter({ digest, file, size });
  for (const index of late) await writePiece(writer, content, index * PIECE, false);
  for (let at = 0; at < content.length; at += PIECE) {
    if (late.includes(at / PIECE)) await writer.hash(at, Math.min(at + PIECE, content.length));
    else if (at > 0) await writePiece(writer, content, at, true);
    else {
      await writePiece(writer, content, 0, true, FIRST);
      if (content.length > FIRST) await writePiece(writer, content, FIRST, true, PIECE);
    }
  }
  const right = await writer.agrees();
  await writer.close();
  assert.ok((await readFile(path)).equals(content));
  return right;
}

test('blobs are written and hashed in parallel, large ones by a worker thread', async () => {
  const small = bytes.subarray(0, 1000);
  const nothing = bytes.subarray(0, 0);
  const wrong = Buffer.from(bytes).fill(0, MiB, MiB + 8);
  const said = await Promise.all(
    (['sha256', 'sha512'] as const).flatMap((algorithm) => [
      agrees(digestOf(bytes, algorithm), bytes, bytes.length),
      agrees(digestOf(bytes, algorithm), bytes, undefined, [31, 3, 7]),
      agrees(digestOf(small, algorithm), small, small.length, [0]),
      agrees(digestOf(nothing, algorithm), nothing, undefined),
      agrees(digestOf(bytes, algorithm), wrong, bytes.length),
      agrees(digestOf(small, algorithm), wrong.subarray(0, 999), 999),
    ]),
  );
  assert.deepEqual(said, [true, true, true, true, false, false, true, true, true, true, false, false]);
});

test('a failed write is reported with its error code, and its bytes are not hashed', async () => {
  for (const [size, end] of [
    [1000, 1000],
    [bytes.length, FIRST],
    [bytes.length, PIECE],
  ] as const) {
    const content = bytes.subarray(0, size);
    await using full = await open('/dev/full', 'r+');
    const writer = createSpoolWriter({ digest: digestOf(bytes.subarray(0, 0)), file: full, size });
    await assert.rejects(writePiece(writer, content, 0, true, end), { code: 'ENOSPC' });
    assert.equal(await writer.agrees(), true);
    await writer.close();
  }
  await using short = await open(join(directory.path, 'short'), 'wx+');
  for (const size of [1000, bytes.length]) {
    const writer = createSpoolWriter({ digest: digestOf(bytes), file: short, size });
    await assert.rejects(writer.hash(0, 1000), /shorter than the bytes written/);
    await writer.close();
  }
});

test('when a worker thread ends, its pending writes fail and the next blob gets a new thread', async () => {
  await using file = await open(join(directory.path, 'ended'), 'wx+');
  const digest = digestOf(bytes);
  const writer = createSpoolWriter({ digest, file, size: bytes.length });
  await writePiece(writer, bytes, 0, true);
  const buffer = acquireShared(createBufferPool(1, PIECE, { shared: true }));
  await writer.write(5 as never, buffer, { position: 0, hashed: true }); // which cannot be hashed
  await assert.rejects(writer.agrees(), TypeError);
  await assert.rejects(writePiece(writer, bytes, 0, true), TypeError);
  await writer.close();
  assert.equal(await agrees(digest, bytes, bytes.length), true);
});
