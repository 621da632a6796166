import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { digestOf } from '../oci/digest.ts';
import { createBlobHash } from './blob-hash.ts';

const MiB = 2 ** 20;
const bytes = randomBytes(3 * MiB + 5);

/** What a hash says of `content`, which it is given in pieces, several at a time. */
async function agrees(digest: ReturnType<typeof digestOf>, content: Buffer, size: number | undefined): Promise<boolean> {
  const hash = createBlobHash(digest, size);
  try {
    const taken: Promise<void>[] = [];
    for (let at = 0; at < content.length; at += 100_000) taken.push(hash.update(content.subarray(at, at + 100_000)));
    await Promise.all(taken);
    return await hash.agrees();
  } finally {
    hash.drop();
  }
}

test('blobs are hashed beside each other, large ones in a thread of their own', async () => {
  const small = bytes.subarray(0, 1000);
  const wrong = Buffer.from(bytes).fill(0, MiB, MiB + 1);
  const said = await Promise.all(
    (['sha256', 'sha512'] as const).flatMap((algorithm) => [
      agrees(digestOf(bytes, algorithm), bytes, bytes.length),
      agrees(digestOf(bytes, algorithm), bytes, undefined),
      agrees(digestOf(small, algorithm), small, small.length),
      agrees(digestOf(Buffer.alloc(0), algorithm), Buffer.alloc(0), undefined),
      agrees(digestOf(bytes, algorithm), wrong, bytes.length),
      agrees(digestOf(small, algorithm), wrong.subarray(0, 999), 999),
    ]),
  );
  assert.deepEqual(said, [true, true, true, true, false, false, true, true, true, true, false, false]);
});

test('a thread that ends fails what it was to hash, and the next blob has another', async () => {
  const digest = digestOf(bytes);
  const hash = createBlobHash(digest, bytes.length);
  const running = hash.update(bytes);
  const impossible = hash.update({} as never); // which throws there
  const after = hash.update(bytes);
  await running;
  await assert.rejects(impossible, TypeError);
  await assert.rejects(after);
  await assert.rejects(hash.agrees());
  hash.drop();
  assert.equal(await agrees(digest, bytes, bytes.length), true);
});
