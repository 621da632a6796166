import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { chown, open, readFile, stat, statfs, truncate, writeFile } from 'node:fs/promises';
import { Agent, get, type IncomingMessage } from 'node:http';
import { Agent as TlsAgent, get as getSecurely } from 'node:https';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { makeCertificate } from '../../test/support/certificate.ts';
import { captureLog } from '../../test/support/log.ts';
import { temporaryDirectory } from '../../test/support/temporary.ts';
import { bytesSource } from '../store/store.ts';
import { createBody, discardBody, iterableSource, type BodySource } from '../io/body.ts';
import { sliceOf, withSlices } from '../io/slice.ts';
import { filesystem } from '../store/filesystem/filesystem.ts';
import { listen, type TlsPair } from './listen.ts';
import { lazyFileSender } from './send-file.ts';
import { sendBody, type SendOptions, type SentBody } from './send.ts';

const MiB = 2 ** 20;
const KEY = 'v1/blobs/one';
const bytes = randomBytes(24 * MiB + 7);
const { log } = await captureLog();
const directory = await temporaryDirectory();
after(() => directory[Symbol.asyncDispose]());
const store = await filesystem({ directory: directory.path });
after(() => store.close());
const file = join(directory.path, KEY);

const sender = lazyFileSender();
/** As if koffi were not installed. */
const none = () => Promise.resolve(undefined);

/** Serves the range of the file that the path names, and reports for each response how much of it
 *  was read to be sent. */
async function serve({ tls, fileSender = sender }: { tls?: TlsPair; fileSender?: SendOptions['fileSender'] } = {}) {
  const sent: Promise<SentBody & { read: number }>[] = [];
  const listener = await listen({
    address: { host: '127.0.0.1', port: 0 },
    log,
    ...(tls === undefined ? {} : { tls }),
    handler: async (request, response) => {
      const [start = 0, end = 0] = (request.url ?? '').slice(1).split('-').map(Number);
      const gone = new AbortController();
      response.once('close', () => gone.abort());
      const content = await store.read(KEY, { signal: gone.signal, range: { start, end } });
      assert.ok(content !== undefined);
      response.writeHead(200, { 'content-length': end - start + 1 });
      let read = 0;
      const chunks = iterableSource(content.body);
      const counted: BodySource = {
        ...chunks,
        async pull() {
          const chunk = await chunks.pull();
          read += chunk?.length ?? 0;
          return chunk;
        },
      };
      const body = withSlices(createBody(counted, new AbortController().signal), sliceOf(content.body));
      const sending = sendBody(response, body, { length: end - start + 1, fileSender });
      const told = sending.then((result) => ({ ...result, read }));
      told.catch(() => undefined); // checked by the tests that need it
      sent.push(told);
      await sending.catch(() => response.destroy());
    },
  });
  return { url: listener.url, sent, [Symbol.asyncDispose]: () => listener.close() };
}

async function ask(url: string, agent: Agent | TlsAgent): Promise<IncomingMessage> {
  const asked = agent instanceof TlsAgent ? getSecurely(url, { agent, rejectUnauthorized: false }) : get(url, { agent });
  const [response] = (await once(asked, 'response')) as [IncomingMessage];
  return response;
}

async function digest(response: IncomingMessage, slowly: boolean): Promise<string> {
  const hash = createHash('sha256');
  let waited = 0;
  for await (const part of response as AsyncIterable<Buffer>) {
    hash.update(part);
    if (slowly && waited++ < 100) await sleep(2);
  }
  return hash.digest('hex');
}

const digestOf = (start: number, end: number) =>
  createHash('sha256')
    .update(bytes.subarray(start, end + 1))
    .digest('hex');

/** How much of a file in memory may be read at most: tmpfs does not report which pages are. */
const copied = async () => ((await statfs(directory.path)).type === 0x01_02_19_94 ? Infinity : 2 ** 16);

const RANGES: [number, number][] = [
  [0, bytes.length - 1],
  [5 * MiB + 3, 6 * MiB + 3],
  [bytes.length - 70_000, bytes.length - 1],
  [17, 17],
];

for (const [way, fileSender] of [
  ['without being read but for its end', sender],
  ['by reading it where koffi is not installed', none],
] as const) {
  test(`a file is sent ${way}, to fast clients and slow ones, on connections that are used again`, async () => {
    await store.write(KEY, bytesSource(bytes), { signal: new AbortController().signal });
    await using server = await serve({ fileSender });
    for (const slowly of [false, true]) {
      using agent = closing(new Agent({ keepAlive: true, maxSockets: 1 }));
      for (const [start, end] of RANGES) {
        const limit = fileSender === none ? Infinity : await copied();
        let read = Infinity;
        // The kernel may take a page from memory, or write it to the disk, at any moment.
        for (let tries = 0; tries < 5 && read > limit; tries++) {
          await readFile(file);
          assert.equal(await digest(await ask(`${server.url}/${start}-${end}`, agent.agent), slowly), digestOf(start, end));
          const sent = (await server.sent.pop()) ?? assert.fail();
          assert.deepEqual([sent.bytes, sent.complete], [end - start + 1, true]);
          ({ read } = sent);
        }
        assert.ok(read <= limit, `${read} of ${end - start + 1} bytes were read`);
      }
    }
  });
}

/** Evicts the file from the page cache. */
const leaveMemory = () => promisify(execFile)('dd', [`if=${file}`, 'iflag=nocache', 'count=0']);

test('a stretch is ready when all of it is in memory, as far as one call sends it', async () => {
  await store.write(KEY, bytesSource(bytes), { signal: new AbortController().signal });
  const sending = (await lazyFileSender()()) ?? assert.fail();
  const handle = await open(file);
  const ready = (position: number) => sending.ready({ file: handle, position, length: bytes.length - position });
  const all = (await copied()) === Infinity ? 0 : 1;
  assert.equal(ready(5000), all * MiB);
  assert.equal(ready(bytes.length - 100), all * 100);
  await leaveMemory();
  assert.equal(ready(5000), 0);
  await handle.close();
  assert.equal(ready(5000), 0);
});

test("another user's file is read instead: for those, the kernel does not report which pages are in memory", async () => {
  await store.write(KEY, bytesSource(bytes), { signal: new AbortController().signal });
  if (process.geteuid?.() === 0) await chown(file, 65534, 65534);
  const [{ uid }, content] = [await stat(file), await store.read(KEY, { signal: new AbortController().signal })];
  const body = content?.body ?? assert.fail();
  assert.equal((await sliceOf(body)?.(0)) === undefined, uid !== process.geteuid?.());
  await discardBody(body);
});

test('bytes that are not in memory are sent, too', async () => {
  await store.write(KEY, bytesSource(bytes), { signal: new AbortController().signal });
  await using server = await serve();
  using agent = closing(new Agent());
  for (const slowly of [false, true]) {
    await leaveMemory();
    const all = `${server.url}/0-${bytes.length - 1}`;
    const answers = await Promise.all(Array.from({ length: 3 }, async () => digest(await ask(all, agent.agent), slowly)));
    assert.deepEqual(answers, Array(3).fill(digestOf(0, bytes.length - 1)));
    const sent = await Promise.all(server.sent.splice(0));
    assert.ok(Math.max(...sent.map(({ read }) => read)) >= MiB, 'somebody waited for the disk in the thread pool');
  }
});

test('through TLS it is read and encrypted', async () => {
  await store.write(KEY, bytesSource(bytes), { signal: new AbortController().signal });
  const { certificate, key } = await makeCertificate(directory.path);
  await using server = await serve({ tls: { cert: await readFile(certificate), key: await readFile(key) } });
  using agent = closing(new TlsAgent());
  assert.equal(await digest(await ask(`${server.url}/0-${bytes.length - 1}`, agent.agent), false), digestOf(0, bytes.length - 1));
  assert.equal((await server.sent.pop())?.read, bytes.length);
});

test('a file that lost bytes cuts the connection', async () => {
  await store.write(KEY, bytesSource(bytes), { signal: new AbortController().signal });
  await using server = await serve();
  using agent = closing(new Agent());
  const response = await ask(`${server.url}/0-${bytes.length - 1}`, agent.agent);
  response.pause();
  await truncate(file, 20 * MiB);
  await assert.rejects(digest(response, false));
  await assert.rejects(server.sent.pop() ?? assert.fail(), /the file ends at/);
});

test('a client that disconnects ends the sending', async () => {
  await writeFile(file, bytes);
  await truncate(file, 2 ** 40); // more than any client could receive
  await using server = await serve();
  using agent = closing(new Agent());
  const response = await ask(`${server.url}/0-${2 ** 40 - 1}`, agent.agent);
  response.once('error', () => undefined);
  response.once('data', () => response.destroy());
  const { complete } = (await (server.sent.pop() ?? assert.fail()).catch(() => undefined)) ?? { complete: false };
  assert.equal(complete, false);
  await truncate(file, 0);
});

function closing<A extends Agent | TlsAgent>(agent: A): { agent: A; [Symbol.dispose](): void } {
  return { agent, [Symbol.dispose]: () => agent.destroy() };
}
