import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { countBytes, createBody, iterableSource, mapBody, readAll, type BodySource } from './body.ts';

const { signal } = new AbortController();

/** A source of `chunks`, which fails with `failure` after the last one if it is given, and notes
 *  when it is closed. */
function sourceOf(chunks: readonly string[], failure?: Error): BodySource & { closed: boolean[] } {
  const left = chunks.map((chunk) => Buffer.from(chunk));
  const closed: boolean[] = [];
  return {
    closed,
    pull() {
      const chunk = left.shift();
      return chunk === undefined && failure !== undefined ? Promise.reject(failure) : Promise.resolve(chunk);
    },
    close: (aborted) => Promise.resolve(void closed.push(aborted)),
  };
}

test('a body closes its source once, whichever way it ends', async () => {
  const ended = sourceOf(['a']);
  assert.equal(String(await readAll(createBody(ended, signal), 10)), 'a');
  const failed = sourceOf(['a'], new Error('cut'));
  await assert.rejects(readAll(createBody(failed, signal), 10), /cut/);
  const returned = sourceOf(['a']);
  const iterator = createBody(returned, signal)[Symbol.asyncIterator]();
  await iterator.return?.();
  await iterator.return?.();
  for (const { closed } of [ended, failed, returned]) assert.deepEqual(closed, [false]);
});

test('a body that is aborted between two chunks, or before the first, frees what it holds at once and throws the reason', async () => {
  for (const chunksRead of [0, 1]) {
    const source = sourceOf(['a', 'b']);
    const controller = new AbortController();
    const events: string[] = [];
    const body = mapBody(createBody(source, controller.signal), { onClose: () => void events.push('closed') });
    const iterator = body[Symbol.asyncIterator]();
    if (chunksRead > 0) await iterator.next();
    controller.abort(new Error('gone'));
    assert.deepEqual(source.closed, [true]);
    assert.deepEqual(events, ['closed']);
    await assert.rejects(iterator.next(), /gone/);
  }
});

test('hooks learn of every chunk, the end, failures and the close, in the order in which they were added', async () => {
  const events: string[] = [];
  const noting = (name: string) => ({
    onBytes: (count: number) => void events.push(`${name} ${count}`),
    onEnd: () => void events.push(`${name} end`),
    onError: (error: unknown) => new Error(`${name}(${(error as Error).message})`),
    onClose: () => void events.push(`${name} close`),
  });
  const body = createBody(sourceOf(['x', 'yy']), signal);
  assert.equal(mapBody(mapBody(body, noting('1')), noting('2')), body, 'the other properties of a body stay the same');
  await readAll(body, 10);
  assert.deepEqual(events, ['1 1', '2 1', '1 2', '2 2', '1 end', '2 end', '1 close', '2 close']);
  const failing = mapBody(mapBody(createBody(sourceOf([], new Error('cut')), signal), noting('1')), noting('2'));
  await assert.rejects(readAll(failing, 10), /^Error: 2\(1\(cut\)\)$/);
});

test('a hook can turn the end of a body into a failure', async () => {
  const source = sourceOf(['x']);
  const body = mapBody(createBody(source, signal), {
    onEnd() {
      throw new Error('too short');
    },
  });
  await assert.rejects(readAll(body, 10), /too short/);
  assert.deepEqual(source.closed, [false]);
});

test('a hook that is added to a body that is already closed is called at once', async () => {
  const source = sourceOf([]);
  const body = createBody(source, AbortSignal.abort());
  let closed = 0;
  mapBody(body, { onClose: () => void closed++ });
  assert.equal(closed, 1);
});

test('any iterable can be given hooks; leaving the body returns the iterable', async () => {
  const events: string[] = [];
  async function* generate() {
    try {
      for (;;) yield await Promise.resolve(Buffer.from('chunk'));
    } finally {
      events.push('freed');
    }
  }
  const body = mapBody(generate(), { onClose: () => void events.push('closed') });
  for await (const _ of body) break;
  assert.deepEqual(events, ['closed', 'freed']);
  const controller = new AbortController();
  const iterator = createBody(iterableSource(generate()), controller.signal)[Symbol.asyncIterator]();
  await iterator.next();
  controller.abort();
  await new Promise(setImmediate);
  assert.deepEqual(events, ['closed', 'freed', 'freed']);
});

test('readAll copies chunks, and aborts a body that is longer than allowed', async () => {
  const reused = Buffer.alloc(1);
  async function* overwriting() {
    for (const byte of [1, 2, 3]) {
      reused[0] = byte;
      yield await Promise.resolve(reused);
    }
  }
  assert.deepEqual(await readAll(overwriting(), 3), Buffer.from([1, 2, 3]));
  const source = sourceOf(['xx', 'yy', 'zz']);
  assert.equal(await readAll(createBody(source, signal), 3), undefined);
  assert.deepEqual(source.closed, [false]);
});

async function* slowly() {
  yield Buffer.alloc(1000);
  await delay(1100);
  yield Buffer.alloc(200);
  yield Buffer.alloc(30);
}

test('the bytes of a body are reported while it arrives, and each of them once', async () => {
  const reports: number[] = [];
  const seen: number[] = [];
  const sum = () => reports.reduce((total, bytes) => total + bytes, 0);
  for await (const _ of countBytes(slowly(), (bytes) => reports.push(bytes))) seen.push(sum());
  assert.ok((seen[1] ?? 0) >= 1200, `before the end: ${seen.join()}`);
  assert.equal(sum(), 1230);
});

test('the bytes of a body that its reader leaves are reported, too', async () => {
  const reports: number[] = [];
  for await (const _ of countBytes(slowly(), (bytes) => reports.push(bytes))) break;
  assert.deepEqual(reports, [1000]);
});
