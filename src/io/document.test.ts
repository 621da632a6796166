import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readWhole, SMALL_DOCUMENT_BYTES } from './document.ts';

async function* inChunks(bytes: Buffer, size = 1000): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < bytes.length; start += size) yield bytes.subarray(start, start + size);
}

function recorder(): { reserved: number[]; reserve: (bytes: number) => Promise<void> } {
  const reserved: number[] = [];
  return { reserved, reserve: async (bytes) => void reserved.push(bytes) };
}

test('a document is read whole, whether its size is known, unknown or wrong, and memory is reserved before it is taken', async () => {
  const large = Buffer.alloc(3 * SMALL_DOCUMENT_BYTES, 'abc');
  const maxBytes = 4 * SMALL_DOCUMENT_BYTES;
  for (const size of [large.length, undefined, 7, large.length + 5]) {
    const { reserved, reserve } = recorder();
    const bytes = await readWhole(inChunks(large), { maxBytes, size, reserve });
    assert.ok(bytes?.equals(large), `size ${size}`);
    assert.ok((reserved.at(-1) ?? 0) >= large.length, `size ${size} reserved ${reserved.join(', ')}`);
  }
});

test('a small document reserves nothing, and one that is too large is not read', async () => {
  const { reserved, reserve } = recorder();
  const small = Buffer.from('{}');
  assert.ok((await readWhole(inChunks(small), { maxBytes: 10, size: undefined, reserve }))?.equals(small));
  assert.ok((await readWhole(inChunks(Buffer.alloc(0)), { maxBytes: 10, size: 0, reserve }))?.length === 0);
  assert.equal(await readWhole(inChunks(Buffer.alloc(11)), { maxBytes: 10, size: 11, reserve }), undefined);
  assert.equal(await readWhole(inChunks(Buffer.alloc(11)), { maxBytes: 10, size: undefined, reserve }), undefined);
  assert.deepEqual(reserved, []);
});

test('a body is closed when its memory is refused', async () => {
  let closed = false;
  const body = {
    [Symbol.asyncIterator]: () => ({
      next: () => assert.fail(),
      return: async () => ((closed = true), { done: true as const, value: undefined }),
    }),
  };
  const reserve = () => Promise.reject(new Error('left'));
  await assert.rejects(readWhole(body, { maxBytes: 2 ** 22, size: 2 ** 22, reserve }), /left/);
  assert.ok(closed);
});
