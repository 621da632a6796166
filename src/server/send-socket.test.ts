import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync, readlinkSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createServer, Agent, get, type IncomingMessage } from 'node:http';
import { get as getSecurely } from 'node:https';
import { connect, type AddressInfo, type Socket } from 'node:net';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { makeCertificate } from '../../test/support/certificate.ts';
import { captureLog } from '../../test/support/log.ts';
import { temporaryDirectory } from '../../test/support/temporary.ts';
import { until } from '../../test/support/until.ts';
import { createRawTransport } from '../http/raw/raw-transport.ts';
import { rawSocketsWork } from '../http/raw/self-check.ts';
import { createBody, iterableSource, type BodySource } from '../io/body.ts';
import { resumingBody } from '../io/resuming-body.ts';
import { sliceOf, withSlices } from '../io/slice.ts';
import type { Body } from '../oci/registry.ts';
import { listen, type TlsPair } from './listen.ts';
import { lazyFileSender } from './send-file.ts';
import { sendBody, type SendOptions, type SentBody } from './send.ts';

const MiB = 2 ** 20;
const bytes = randomBytes(32 * MiB + 7);
const DIGEST = createHash('sha256').update(bytes).digest('hex');
const { log } = await captureLog();
assert.ok(await rawSocketsWork());

const sender = lazyFileSender();
/** As if koffi were not installed. */
const none = () => Promise.resolve(undefined);

/** Sends `bytes` from a position on. `cutAt`: the connection ends there, once. */
async function startSource({ cutAt, reset = false }: { cutAt?: number; reset?: boolean } = {}) {
  let cut = cutAt;
  const sockets = new Set<Socket>();
  const server = createServer((request, response) => {
    const start = Number(/bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
    response.writeHead(start === 0 ? 200 : 206, { 'content-length': bytes.length - start });
    const { socket } = response;
    const end = (): void => void (reset ? socket?.resetAndDestroy() : socket?.destroy());
    if (cut === undefined) response.end(bytes.subarray(start));
    else response.write(bytes.subarray(start, cut), () => setTimeout(end, 50));
    cut = undefined;
  });
  let connections = 0;
  server.on('connection', (socket) => {
    connections++;
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    connections: () => connections,
    open: () => sockets.size,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

type Source = Awaited<ReturnType<typeof startSource>>;

/** A body whose chunks are counted when they are read. */
function readCounted(body: Body, read: (bytes: number) => void): Body {
  const chunks = iterableSource(body);
  const counted: BodySource = {
    ...chunks,
    async pull() {
      const chunk = await chunks.pull();
      read(chunk?.length ?? 0);
      return chunk;
    },
  };
  return withSlices(createBody(counted, new AbortController().signal), sliceOf(body));
}

interface Relayed extends SentBody {
  /** Bytes that were read to be sent. */
  read: number;
}

/** Passes on what a source sends. `resumes`: a body that is cut continues. */
async function startRelay(
  source: Source,
  { fileSender = sender, resumes = false, tls }: { fileSender?: SendOptions['fileSender']; resumes?: boolean; tls?: TlsPair } = {},
) {
  const transport = createRawTransport({ connectTimeout: 1000 });
  const sent: Promise<Relayed>[] = [];
  const open = async (start: number, signal: AbortSignal): Promise<Body> => {
    const headers: Record<string, string> = start === 0 ? {} : { range: `bytes=${start}-` };
    const { body } = await transport.request({ origin: source.origin, path: '/', method: 'GET', headers, signal });
    return withSlices(createBody(body, signal), sliceOf(body));
  };
  const listener = await listen({
    address: { host: '127.0.0.1', port: 0 },
    log,
    ...(tls === undefined ? {} : { tls }),
    async handler(_, response) {
      const gone = new AbortController();
      response.once('close', () => gone.abort());
      const failed = async (error: unknown): Promise<void> => {
        if (!resumes) throw error;
      };
      const body = resumingBody({ start: 0, open: (position) => open(position, gone.signal), failed, signal: gone.signal });
      response.writeHead(200, { 'content-length': bytes.length });
      let read = 0;
      const counted = readCounted(body, (count) => void (read += count));
      const sending = sendBody(response, counted, { length: bytes.length, fileSender });
      const told = sending.then((result) => ({ ...result, read }));
      told.catch(() => undefined); // checked by the tests that need it
      sent.push(told);
      await sending.catch(() => response.destroy());
    },
  });
  return { url: listener.url, sent, [Symbol.asyncDispose]: () => listener.close() };
}

async function ask(url: string, agent = new Agent()): Promise<IncomingMessage> {
  const asked = url.startsWith('https') ? getSecurely(url, { rejectUnauthorized: false }) : get(url, { agent });
  const [response] = (await once(asked, 'response')) as [IncomingMessage];
  return response;
}

async function digestOf(response: IncomingMessage, pauseMs = 0): Promise<string> {
  const hash = createHash('sha256');
  let waited = 0;
  for await (const part of response as AsyncIterable<Buffer>) {
    hash.update(part);
    if (pauseMs > 0 && waited++ < 100) await sleep(pauseMs);
  }
  return hash.digest('hex');
}

for (const [way, fileSender] of [
  ['without reading most of it', sender],
  ['by reading it where koffi is not installed', none],
] as const) {
  test(`what arrives at one socket is passed on to another ${way}, to fast clients and slow ones`, async () => {
    await using source = await startSource();
    await using relay = await startRelay(source, { fileSender });
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    for (const pauseMs of [0, 2, 0]) {
      assert.equal(await digestOf(await ask(relay.url, agent), pauseMs), DIGEST);
      const { bytes: taken, complete, read } = (await relay.sent.pop()) ?? assert.fail();
      assert.deepEqual({ taken, complete }, { taken: bytes.length, complete: true });
      if (fileSender === none) assert.equal(read, bytes.length);
      else assert.ok(read < bytes.length / 2, `${read} bytes were read`);
    }
    agent.destroy();
    assert.equal(source.connections(), 1, 'the connection to the source is used again');
  });

  for (const reset of [false, true]) {
    const how = reset ? 'resets' : 'closes';
    test(`a source that ${how} the connection in the middle: the body continues where it was, or is cut (${way})`, async () => {
      await using source = await startSource({ cutAt: 20 * MiB, reset });
      await using relay = await startRelay(source, { fileSender, resumes: true });
      assert.equal(await digestOf(await ask(relay.url)), DIGEST);
      await using other = await startSource({ cutAt: 20 * MiB, reset });
      await using cutting = await startRelay(other, { fileSender });
      await assert.rejects(digestOf(await ask(cutting.url)), /aborted|ECONNRESET/);
      await assert.rejects(cutting.sent.pop() ?? assert.fail());
    });
  }

  test(`a client that leaves ends the source's connection, and nothing stays open (${way})`, async () => {
    await using source = await startSource();
    await using relay = await startRelay(source, { fileSender });
    assert.equal(await digestOf(await ask(relay.url)), DIGEST); // loads what is loaded once
    await relay.sent.pop();
    const pipes = countPipes();
    for (let count = 0; count < 20; count++) {
      const response = await ask(relay.url);
      response.once('error', () => undefined);
      for (let seen = 0; seen < 4 * MiB;) seen += ((await once(response, 'data')) as [Buffer])[0].length;
      response.destroy();
      const { complete } = (await (relay.sent.pop() ?? assert.fail()).catch(() => undefined)) ?? { complete: false };
      assert.equal(complete, false);
    }
    await until(() => source.open() <= 1, 'the connections are closed');
    assert.equal(countPipes(), pipes);
  });

  test(`a client that stops reading stops the source, and gets the rest later (${way})`, async () => {
    await using source = await startSource();
    await using relay = await startRelay(source, { fileSender });
    const response = await ask(relay.url);
    response.pause();
    await sleep(500);
    assert.equal(await digestOf(response), DIGEST);
  });

  test(`a client that has closed its own direction counts as gone (${way})`, async () => {
    await using source = await startSource();
    await using relay = await startRelay(source, { fileSender });
    const { hostname, port } = new URL(relay.url);
    const socket = connect({ host: hostname, port: Number(port), allowHalfOpen: true });
    socket.end('GET / HTTP/1.1\r\nHost: relay\r\n\r\n');
    const all = Buffer.concat((await socket.toArray()) as Buffer[]);
    assert.ok(all.length < bytes.length);
    await until(() => source.open() === 0, 'the connection is closed');
  });
}

test('many bodies at once arrive unmixed, also those for which there is no pipe', async () => {
  await using source = await startSource();
  await using relay = await startRelay(source);
  const pipes = countPipes();
  const digests = await Promise.all(Array.from({ length: 24 }, async () => digestOf(await ask(relay.url), 1)));
  assert.deepEqual(digests, Array(24).fill(DIGEST));
  await Promise.all(relay.sent);
  assert.equal(countPipes(), pipes);
});

test('through TLS everything is read and encrypted', async () => {
  const directory = await temporaryDirectory();
  after(() => directory[Symbol.asyncDispose]());
  const { certificate, key } = await makeCertificate(directory.path);
  await using source = await startSource();
  await using relay = await startRelay(source, { tls: { cert: await readFile(certificate), key: await readFile(key) } });
  assert.equal(await digestOf(await ask(relay.url)), DIGEST);
  assert.equal((await relay.sent.pop())?.read, bytes.length);
});

/** The ends of pipes that this process has open. */
function countPipes(): number {
  return readdirSync('/proc/self/fd').filter((fd) => targetOf(fd).startsWith('pipe:')).length;
}

function targetOf(fd: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return ''; // closed meanwhile
  }
}
