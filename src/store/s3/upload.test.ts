import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readdir, readlink, truncate, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { temporaryDirectory } from '../../../test/support/temporary.ts';
import { isOciError } from '../../oci/error.ts';
import { s3 } from './s3.ts';
import { fileSource } from '../store.ts';

const MIB = 2 ** 20;
const SIZE = 64 * MIB;

type Request = [IncomingMessage, ServerResponse];

/** An S3 that handles each PUT as the test says. */
const server = createServer();
server.listen(0, '127.0.0.1');
await once(server, 'listening');
const temporary = await temporaryDirectory();
const store = s3({
  bucket: 'images',
  region: 'us-east-1',
  endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
  forcePathStyle: true,
  createBucket: false,
  prefix: '',
  credentials: () => Promise.resolve({ accessKeyId: 'id', secretAccessKey: 'secret' }),
});
after(async () => {
  await store.close();
  server.closeAllConnections();
  server.close();
  await temporary[Symbol.asyncDispose]();
});

const nextRequest = async (): Promise<Request> => (await once(server, 'request')) as Request;

async function hashOf(body: AsyncIterable<Buffer>): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of body) hash.update(chunk);
  return hash.digest('hex');
}

/** Waits until no more bytes of an unread body arrive: all buffers between the file and here are
 *  full. */
async function untilStuck({ socket }: IncomingMessage): Promise<void> {
  for (let before = -1; socket.bytesRead !== before; await delay(300)) before = socket.bytesRead;
}

/** Whether the file is closed, after a while. */
async function isClosed(file: string): Promise<boolean> {
  for (let tries = 0; tries < 100; tries++, await delay(50)) {
    const open = await Promise.all((await readdir('/proc/self/fd')).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => 'gone')));
    if (!open.includes(file)) return true;
  }
  return false;
}

void describe('a file on its way to S3', () => {
  void test('waits for a slow S3 without being buffered in memory, and arrives completely', async () => {
    const file = join(temporary.path, 'slow');
    const bytes = randomBytes(SIZE);
    const expected = createHash('sha256').update(bytes).digest('hex');
    await writeFile(file, bytes);
    const before = process.memoryUsage().arrayBuffers;
    const write = store.write('v1/object', fileSource(file, SIZE), { signal: AbortSignal.timeout(60_000) });
    const [request, response] = await nextRequest();
    await untilStuck(request);
    assert.ok(request.socket.bytesRead < SIZE / 2, 'it hangs');
    const grown = process.memoryUsage().arrayBuffers - before;
    assert.ok(grown < SIZE / 8, `${grown} bytes in memory`);
    assert.equal(await hashOf(request), expected);
    response.setHeader('etag', '"x"').end();
    await write;
    assert.ok(await isClosed(file));
  });

  void test('that S3 is too busy for half way is sent again from its beginning', async () => {
    const file = join(temporary.path, 'busy');
    const bytes = randomBytes(SIZE);
    await writeFile(file, bytes);
    const write = store.write('v1/object', fileSource(file, SIZE), { signal: AbortSignal.timeout(60_000) });
    const [first, busy] = await nextRequest();
    await untilStuck(first);
    busy.writeHead(503).end();
    const [second, response] = await nextRequest();
    assert.equal(await hashOf(second), createHash('sha256').update(bytes).digest('hex'));
    response.setHeader('etag', '"x"').end();
    await write;
    assert.ok(await isClosed(file));
  });

  const ends: Record<
    string,
    { happens: (file: string, request: Request, stop: AbortController) => unknown; thrown: (error: Error) => boolean }
  > = {
    'that shrinks meanwhile': {
      happens: async (file, [request]) => {
        await truncate(file, SIZE / 2);
        request.resume();
      },
      thrown: (error) => isOciError(error, 'SIZE_INVALID'),
    },
    'that S3 refuses before it has read it': {
      happens: (_, [, response]) => response.writeHead(403).end(),
      thrown: (error) => isOciError(error, 'UNAVAILABLE') && error.message.includes('S3 refuses writing'),
    },
    'that is no longer wanted': {
      happens: (_, request, stop) => stop.abort(new Error('no longer wanted')),
      thrown: ({ message }) => message === 'no longer wanted',
    },
  };
  for (const [name, { happens, thrown }] of Object.entries(ends)) {
    void test(`${name} ends the request before its last bytes, and is closed`, async () => {
      const file = join(temporary.path, 'ends');
      await writeFile(file, randomBytes(SIZE));
      const stop = new AbortController();
      const write = store.write('v1/object', fileSource(file, SIZE), { signal: stop.signal });
      const request = await nextRequest();
      await untilStuck(request[0]);
      const cut = new Promise((resolve) => request[0].socket.once('close', resolve));
      request[0].on('error', () => undefined); // it is cut
      await Promise.all([assert.rejects(write, thrown), happens(file, request, stop)]);
      request[0].resume();
      await cut;
      assert.equal(request[0].complete, false);
      assert.ok(await isClosed(file));
    });
  }

  void test('that has another size than it was said to have sends nothing', async () => {
    const file = join(temporary.path, 'other');
    await writeFile(file, randomBytes(MIB));
    for (const size of [MIB - 1, MIB + 1]) {
      const write = store.write('v1/object', fileSource(file, size), { signal: AbortSignal.timeout(60_000) });
      await assert.rejects(write, (error) => isOciError(error, 'SIZE_INVALID'));
      assert.ok(await isClosed(file));
    }
  });

  void test('returns any range, as needed for the parts of a large object', async () => {
    const file = join(temporary.path, 'ranges');
    const bytes = randomBytes(3 * MIB);
    await writeFile(file, bytes);
    const { signal } = new AbortController();
    for (const [start, end] of [
      [0, 0],
      [5, 2 * MIB + 5],
      [2 * MIB, 3 * MIB - 1],
    ] as const) {
      const chunks = (await fileSource(file, bytes.length).open({ signal, range: { start, end } })) as AsyncIterable<Buffer>;
      assert.equal(
        await hashOf(chunks),
        createHash('sha256')
          .update(bytes.subarray(start, end + 1))
          .digest('hex'),
        `${start}-${end}`,
      );
    }
    assert.ok(await isClosed(file));
  });
});
