import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request, type IncomingMessage } from 'node:http';
import { test } from 'node:test';
import { captureLog } from '../../test/support/log.ts';
import { until } from '../../test/support/until.ts';
import { listen } from '../server/listen.ts';
import { createEventStream } from './event-stream.ts';

const HUGE = 'x'.repeat(200_000);

async function start(intervalMs: number, size = 0) {
  let taken = 0;
  const snapshot = () => {
    taken++;
    return Promise.resolve({ at: new Date().toISOString(), downloads: [], total: taken, padding: HUGE.slice(0, size) });
  };
  const stream = createEventStream({
    snapshots: { downloads: snapshot as never, jobs: () => Promise.resolve({ jobs: [] }) },
    intervalMs,
  });
  const { log } = await captureLog();
  const listener = await listen({ address: { host: '127.0.0.1', port: 0 }, handler: stream.handler, log });
  return {
    stream,
    taken: () => taken,
    async open(): Promise<IncomingMessage> {
      const asking = request(listener.url).end();
      const [response] = (await once(asking, 'response')) as [IncomingMessage];
      return response;
    },
    async [Symbol.asyncDispose]() {
      stream.close();
      await listener.close();
    },
  };
}

test('one snapshot serves all readers, unchanged snapshots are not sent again, and without readers no snapshots are taken', async () => {
  await using server = await start(50);
  const readers = await Promise.all(Array.from({ length: 20 }, () => server.open()));
  const texts = readers.map((reader) => {
    const own = { text: '' };
    reader.setEncoding('utf8').on('data', (chunk: string) => (own.text += chunk));
    return own;
  });
  await until(() => texts.every(({ text }) => text.split('event: downloads').length > 5), 'every reader follows');
  const before = server.taken();
  for (const { text } of texts) {
    assert.ok(text.split('event: downloads').length - 1 <= before + 1, 'no more events than snapshots');
    assert.equal(text.split('event: jobs').length - 1, 1, 'jobs have not changed');
  }
  for (const reader of readers) reader.destroy();
  await until(() => server.stream.readers() === 0, 'they have left');
  const after = server.taken();
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.ok(server.taken() <= after + 1);
});

test('a reader that does not read misses snapshots and is dropped; the others do not notice', async () => {
  await using server = await start(10, HUGE.length);
  const silent = await server.open();
  silent.pause();
  const reading = await server.open();
  let bytes = 0;
  reading.on('data', (chunk: Buffer) => (bytes += chunk.length));
  const memory = process.memoryUsage().rss;
  await until(() => server.stream.readers() === 1, 'the silent one is dropped');
  await until(() => bytes > 20 * HUGE.length, 'the other one follows');
  assert.ok(process.memoryUsage().rss - memory < 200 * 2 ** 20, 'unread bytes were not kept');
  reading.destroy();
  silent.destroy();
});

test('the number of readers is limited', async () => {
  await using server = await start(1000);
  const readers = await Promise.all(Array.from({ length: 100 }, () => server.open()));
  const refused = await server.open();
  assert.equal(refused.statusCode, 503);
  for (const reader of [...readers, refused]) reader.destroy();
});
