import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createDigestHash, digestOf } from '../oci/digest.ts';
import type { ByteRange } from '../oci/range.ts';
import type { Blob } from '../oci/registry.ts';
import { readWithoutSpool } from './without-spool.ts';

const BYTES = Buffer.from(Array.from({ length: 400_000 }, (_, index) => (index * 2_654_435_761) >>> 24));
const DIGEST = digestOf(BYTES);
const PIECE = 20_000;

test('a blob of unknown length whose connection breaks, and whose size the next response gives, arrives in order', async () => {
  let requests = 0;
  function source(range: ByteRange | undefined): Promise<Blob> {
    const first = ++requests === 1;
    async function* body() {
      for (let at = range?.start ?? 0; at < BYTES.length; at += PIECE) {
        if (first && at === 5 * PIECE) throw new Error('cut');
        yield await Promise.resolve(BYTES.subarray(at, at + PIECE));
      }
    }
    const part = range === undefined ? undefined : { start: range.start, end: BYTES.length - 1 };
    return Promise.resolve({ digest: DIGEST, size: first ? undefined : BYTES.length, range: part, body: body() });
  }
  const hash = { hash: createDigestHash(DIGEST), hashed: 0 };
  const options = {
    digest: DIGEST,
    sources: { open: source },
    maxSize: 2 * BYTES.length,
    size: undefined,
    from: 0,
    to: undefined,
    ...hash,
  };
  const chunks = await Array.fromAsync(readWithoutSpool(options, new AbortController().signal));
  assert.equal(requests, 2);
  assert.ok(Buffer.concat(chunks).equals(BYTES));
});

test('each chunk is right until the second one after it is requested, though the source alternates two buffers', async () => {
  async function* alternating() {
    const buffers = [Buffer.alloc(PIECE), Buffer.alloc(PIECE)] as const;
    for (let at = 0; at < BYTES.length; at += PIECE) {
      const buffer = buffers[(at / PIECE) % 2 === 0 ? 0 : 1];
      const length = BYTES.copy(buffer, 0, at, at + PIECE);
      yield await Promise.resolve(buffer.subarray(0, length));
    }
  }
  const open = () => Promise.resolve({ digest: DIGEST, size: BYTES.length, range: undefined, body: alternating() });
  for (const [from, to] of [
    [0, undefined],
    [30_000, BYTES.length - 1],
    [0, BYTES.length - 50_000],
  ] as const) {
    const hash = { hash: createDigestHash(DIGEST), hashed: 0 };
    const options = { digest: DIGEST, sources: { open }, maxSize: BYTES.length, size: BYTES.length, from, to, ...hash };
    const got: Buffer[] = [];
    let last: Uint8Array | undefined;
    for await (const chunk of readWithoutSpool(options, new AbortController().signal)) {
      if (last !== undefined) got.push(Buffer.from(last));
      last = chunk;
    }
    if (last !== undefined) got.push(Buffer.from(last));
    assert.ok(Buffer.concat(got).equals(BYTES.subarray(from, to)), `${from} to ${String(to)}`);
  }
});
