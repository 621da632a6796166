import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Body } from '../oci/registry.ts';
import { readAll } from './body.ts';
import { resumingBody } from './resuming-body.ts';
import { sliceOf, withSlices } from './slice.ts';

const { signal } = new AbortController();
const BYTES = Buffer.from('0123456789');

/** Chunks of two bytes from `start` to `end`, and then a failure. */
async function* cutAfter(start: number, end: number): AsyncGenerator<Buffer> {
  for (let at = start; at < end; at += 2) yield BYTES.subarray(at, Math.min(end, at + 2));
  throw new Error('cut');
}

async function* all(start: number): AsyncGenerator<Buffer> {
  yield BYTES.subarray(start);
}

test('a body continues where the last one failed, until one is complete or nothing is left', async () => {
  for (const last of [all(7), undefined]) {
    const bodies: (Body | undefined)[] = [cutAfter(0, 4), cutAfter(4, 7), last];
    const opened: number[] = [];
    const failures: number[] = [];
    const body = resumingBody({
      start: 0,
      signal,
      async open(position) {
        opened.push(position);
        return bodies.shift();
      },
      async failed(_, position) {
        failures.push(position);
      },
    });
    assert.equal(String(await readAll(body, 100)), last === undefined ? '0123456' : String(BYTES));
    assert.deepEqual(
      [opened, failures],
      [
        [0, 4, 7],
        [4, 7],
      ],
    );
  }
});

test('bytes that were sent without being read count, and a slice that fails is read instead', async () => {
  const slices = [5, 0];
  const taken: number[] = [];
  const first = withSlices(cutAfter(0, 2), async (count) => {
    taken.push(count);
    const length = slices.shift() ?? 0;
    if (length === 0) throw new Error('cut');
    return { moveTo: () => length, length };
  });
  const failures: number[] = [];
  const body = resumingBody({
    start: 0,
    signal,
    open: async (position) => (position === 0 ? first : all(position)),
    async failed(_, position) {
      failures.push(position);
    },
  });
  const next = sliceOf(body) ?? assert.fail();
  const iterator = body[Symbol.asyncIterator]();
  assert.equal(await next(0), undefined, 'nothing is open before the first read');
  assert.equal(String((await iterator.next()).value), '01');
  assert.equal((await next(0))?.length, 5);
  assert.equal(await next(5), undefined);
  assert.equal(String((await iterator.next()).value), '789');
  assert.deepEqual([taken, failures], [[0, 5], [7]]);
});

test('a failure that cannot be overcome ends the body', async () => {
  const body = resumingBody({
    start: 0,
    signal,
    open: async () => cutAfter(0, 4),
    async failed(cause) {
      throw cause;
    },
  });
  await assert.rejects(readAll(body, 100), /^Error: cut$/);
});
