import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { acquireShared, spoolBuffers } from '../../io/buffers.ts';
import { createCoalescingWriter, type Sink } from './coalescing-writer.ts';
import { createRecentChunks } from './recent-chunks.ts';

const bytes = randomBytes(9_000_001);

/** Writes slowly, in order, and at most `wanted` bytes. */
function createSlowSink(wanted = Infinity): Sink & { got(): Buffer; most(): number } {
  const parts: Buffer[] = [];
  let total = 0;
  let underWay = 0;
  let most = 0;
  let last = Promise.resolve();

  async function write(part: Buffer): Promise<number> {
    await delay(2);
    const count = Math.min(part.length, wanted - total);
    parts.push(Buffer.from(part.subarray(0, count))); // the buffer may not have been used again so far
    total += count;
    underWay--;
    return count;
  }

  return {
    async write(part) {
      most = Math.max(most, ++underWay);
      const written = last.then(() => write(Buffer.from(part.buffer, part.byteOffset, part.length)));
      last = written.then(() => undefined);
      return written;
    },
    written: () => undefined,
    got: () => Buffer.concat(parts),
    most: () => most,
  };
}

/** Passes `bytes` to a writer in pieces of these sizes, in turn. @returns how many bytes it
 *  accepted */
async function writeAll(sink: Sink, sizes: readonly number[], { shared = false } = {}): Promise<number> {
  const chunks = createRecentChunks();
  const writer = createCoalescingWriter(0, chunks, sink);
  for (let at = 0, turn = 0; at < bytes.length; turn++) {
    const piece = bytes.subarray(at, at + (sizes[turn % sizes.length] ?? 1));
    at += piece.length;
    if (shared) {
      const buffer = acquireShared(spoolBuffers);
      piece.copy(buffer.bytes);
      await writer.take(buffer.bytes.subarray(0, piece.length));
      buffer.release();
    } else {
      await writer.take(piece);
    }
    if (turn % 7 === 0) await delay(1);
  }
  await writer.end();
  chunks.clear();
  return writer.position();
}

for (const [name, sizes, shared] of [
  ['small pieces', [1000, 16_384, 7], false],
  ['large pieces', [500_000, 2 ** 19], false],
  ['pieces in shared memory', [2 ** 19, 100_000, 70_000], true],
] as const) {
  test(`${name} are written once, in order, while up to four writes are under way`, async () => {
    const sink = createSlowSink();
    const used = spoolBuffers.used;
    assert.equal(await writeAll(sink, sizes, { shared }), bytes.length);
    assert.ok(sink.got().equals(bytes));
    assert.ok(sink.most() > 1 && sink.most() <= 4, `${sink.most()} under way`);
    assert.equal(spoolBuffers.used, used, 'all buffers are back');
  });
}

test('once no more bytes are wanted, no more are written, and no caller waits', async () => {
  const wanted = 1_234_567;
  const sink = createSlowSink(wanted);
  const used = spoolBuffers.used;
  await writeAll(sink, [300_000]);
  assert.ok(sink.got().equals(bytes.subarray(0, wanted)));
  assert.equal(spoolBuffers.used, used);
});
