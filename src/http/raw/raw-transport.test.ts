import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer, type RequestListener } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { createSecureContext } from 'node:tls';
import { makeCertificate } from '../../../test/support/certificate.ts';
import { temporaryDirectory } from '../../../test/support/temporary.ts';
import { createBody, readAll } from '../../io/body.ts';
import { CONNECTIONS, createRawTransport } from './raw-transport.ts';
import { rawSocketsWork } from './self-check.ts';
import type { TransportResponse } from '../transport.ts';

const MiB = 1024 * 1024;
const bytes = randomBytes(9 * MiB + 12_345);

const directory = await temporaryDirectory();
after(() => directory[Symbol.asyncDispose]());
const files = await makeCertificate(directory.path);
const pair = { cert: await readFile(files.certificate), key: await readFile(files.key) };
const secureContext = createSecureContext({ ca: pair.cert });

before(async () => {
  assert.equal(await rawSocketsWork(), true, 'long bodies are read from their sockets by this version of Node');
});

for (const [name, { scheme, plain }] of Object.entries({
  'raw sockets': { scheme: 'http', plain: false },
  "Node's parser": { scheme: 'http', plain: true },
  'raw sockets of TLS': { scheme: 'https', plain: false },
  "TLS and Node's parser": { scheme: 'https', plain: true },
})) {
  const transport = createRawTransport({ connectTimeout: 5000, plain, secureContext });

  async function serve(listener: RequestListener, host = '127.0.0.1') {
    const server = scheme === 'http' ? createServer(listener) : createSecureServer(pair, listener);
    server.listen(0, host);
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    return {
      server,
      origin: `${scheme}://${host.includes(':') ? `[${host}]` : host}:${port}`,
      async [Symbol.asyncDispose]() {
        server.closeAllConnections();
        server.close();
        await once(server, 'close');
      },
    };
  }

  function get(origin: string, path = '/', signal = new AbortController().signal): Promise<TransportResponse> {
    return transport.request({ origin, path, method: 'GET', headers: {}, signal });
  }

  /** Reads like a slow client: it looks at a chunk when the next one has already been requested. */
  async function digestOf({ body }: TransportResponse, pause = 0): Promise<string> {
    const hash = createHash('sha256');
    let before: Uint8Array | undefined;
    for await (const chunk of createBody(body, new AbortController().signal)) {
      if (before !== undefined) hash.update(before);
      before = chunk;
      if (pause > 0) await delay(pause);
    }
    return hash.update(before ?? '').digest('hex');
  }

  const digest = (part: Uint8Array): string => createHash('sha256').update(part).digest('hex');

  test(`${name}: bodies of every length, known or unknown, arrive whole at fast and slow readers`, async () => {
    const lengths = [0, 1, 65_536, MiB - 1, MiB, MiB + 1, bytes.length];
    await using own = await serve((request, response) => {
      const [, length, chunked] = (request.url ?? '').split('/');
      if (chunked === undefined) response.setHeader('content-length', Number(length));
      response.end(bytes.subarray(0, Number(length)));
    });
    for (const length of lengths) {
      const expected = digest(bytes.subarray(0, length));
      assert.equal(await digestOf(await get(own.origin, `/${length}`)), expected, `${length}`);
      assert.equal(await digestOf(await get(own.origin, `/${length}/chunked`)), expected, `${length} in chunks`);
    }
    const all = Array.from({ length: 8 }, async (_, index) => digestOf(await get(own.origin, `/${bytes.length}`), index));
    assert.deepEqual([...new Set(await Promise.all(all))], [digest(bytes)]);
  });

  test(`${name}: a truncated body fails, and an aborted body ends`, async () => {
    await using own = await serve((_, response) => {
      response.setHeader('content-length', bytes.length);
      response.write(bytes.subarray(0, 3 * MiB), () => setTimeout(() => response.destroy(), 100));
    });
    await assert.rejects(digestOf(await get(own.origin)), /ECONNRESET|cut|aborted/);
    const controller = new AbortController();
    const { body } = await get(own.origin, '/', controller.signal);
    controller.abort(new Error('enough'));
    await assert.rejects(digestOf({ body } as TransportResponse));
  });

  test(`${name}: the last chunk of an aborted body keeps its bytes when other connections receive data`, async () => {
    const size = MiB + 12_345;
    await using own = await serve((_, response) => {
      response.setHeader('content-length', size);
      response.end(randomBytes(size));
    });
    const controller = new AbortController();
    const { body } = await get(own.origin, '/', controller.signal);
    let given = 0;
    for await (const chunk of createBody(body, controller.signal)) {
      given += chunk.length;
      if (given < size) continue;
      const before = digest(chunk);
      controller.abort();
      for (let count = 0; count < 3; count++) await digestOf(await get(own.origin));
      assert.equal(digest(chunk), before);
      break;
    }
    assert.equal(given, size);
  });

  test(`${name}: a body that is aborted while no more bytes come ends at once`, async () => {
    await using own = await serve((_, response) => {
      response.setHeader('content-length', bytes.length);
      response.write(bytes.subarray(0, 2 * MiB));
    });
    const controller = new AbortController();
    const { body } = await get(own.origin, '/', controller.signal);
    const source = createBody(body, controller.signal);
    setTimeout(() => controller.abort(new Error('enough')), 300);
    await assert.rejects(readAll(source, Infinity), /enough/);
  });

  test(`${name}: a request that is aborted while it waits for a connection ends at once`, async () => {
    await using own = await serve(() => undefined);
    const hold = new AbortController();
    const taken = Array.from({ length: CONNECTIONS }, () => assert.rejects(get(own.origin, '/', hold.signal), /enough/));
    await assert.rejects(get(own.origin, '/', AbortSignal.timeout(100)), { name: 'TimeoutError' });
    hold.abort(new Error('enough'));
    await Promise.all(taken);
  });

  test(`${name}: a response without a body leaves its connection to the next request, whatever Content-Length it has`, async () => {
    let connections = 0;
    await using own = await serve((request, response) => {
      response.writeHead(request.url === '/none' ? 204 : 200, {
        'content-length': request.method === 'GET' && request.url === '/' ? 2 : 5 * MiB,
      });
      response.end(request.url === '/' ? 'ok' : undefined);
    });
    own.server.on('connection', () => connections++);
    for (let count = 0; count < 3; count++) {
      const head = await transport.request({
        origin: own.origin,
        path: '/',
        method: 'HEAD',
        headers: {},
        signal: new AbortController().signal,
      });
      head.abandon('long');
      await delay(20);
      (await get(own.origin, '/none')).abandon('short');
      await delay(20);
      assert.equal(await digestOf(await get(own.origin)), digest(Buffer.from('ok')));
      await delay(20);
    }
    assert.equal(connections, 1);
  });

  test(`${name}: a long body that was read to its end leaves its connection to the next request`, async () => {
    let connections = 0;
    await using own = await serve((_, response) => {
      response.setHeader('content-length', bytes.length);
      response.end(bytes);
    });
    own.server.on('connection', () => connections++);
    const warnings: Error[] = [];
    const onWarning = (warning: Error) => void warnings.push(warning);
    process.on('warning', onWarning);
    for (let count = 0; count < 12; count++) {
      assert.equal(await digestOf(await get(own.origin)), digest(bytes));
      await delay(20);
    }
    process.off('warning', onWarning);
    assert.equal(connections, 1);
    assert.deepEqual(warnings, [], 'no body leaves a listener behind');
  });

  if (!plain)
    test(`${name}: the body of a slow connection is read in few pieces`, async () => {
      const [size, part] = [4 * MiB, 16 * 1024];
      await using own = await serve((_, response) => {
        response.setHeader('content-length', size);
        let at = 0;
        const timer = setInterval(() => {
          response.write(bytes.subarray(at, at + part));
          at += part;
          if (at < size) return;
          clearInterval(timer);
          response.end();
        }, 2);
      });
      const { body } = await get(own.origin);
      const hash = createHash('sha256');
      let pieces = 0;
      for await (const chunk of createBody(body, new AbortController().signal)) {
        pieces++;
        hash.update(chunk);
      }
      assert.equal(hash.digest('hex'), digest(bytes.subarray(0, size)));
      assert.ok(pieces < size / part / 4, `${pieces} pieces`);
    });

  test(`${name}: bytes after the end of a body are not taken as the response to the next request`, async () => {
    let requests = 0;
    await using own = await serve((request, response) => {
      requests++;
      if (requests > 1) {
        response.end('right');
        return;
      }
      // As from a server that is out of step: a body, and a response without a request.
      request.socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${2 * MiB}\r\n\r\n`);
      request.socket.write(bytes.subarray(0, 2 * MiB));
      request.socket.write('HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong');
    });
    assert.equal(await digestOf(await get(own.origin)), digest(bytes.subarray(0, 2 * MiB)));
    await delay(50);
    assert.equal(await digestOf(await get(own.origin)), digest(Buffer.from('right')));
  });

  test(`${name}: a request succeeds although its kept connection was closed`, async () => {
    let requests = 0;
    await using own = await serve((request, response) => {
      requests++;
      response.end('ok');
      response.once('finish', () => setTimeout(() => request.socket.destroy(), 20));
    });
    for (let count = 0; count < 20; count++) {
      assert.equal(await digestOf(await get(own.origin)), digest(Buffer.from('ok')));
      await delay(15 + (count % 10));
    }
    assert.ok(requests >= 20);
  });

  test(`${name}: headers of 64 KiB are read`, async () => {
    await using own = await serve((_, response) => {
      response.setHeader('x-policy', 'p'.repeat(64 * 1024));
      response.end('ok');
    });
    assert.equal(String((await get(own.origin)).headers['x-policy']).length, 64 * 1024);
  });

  test(`${name}: a refused connection, an unreachable host, and an IPv6 address`, async () => {
    const gone = await serve(() => undefined);
    await gone[Symbol.asyncDispose]();
    await assert.rejects(get(gone.origin), { code: 'ECONNREFUSED' });
    // TEST-NET-1: there is no route, or no host answers.
    await assert.rejects(get('http://192.0.2.1:5000'));
    await using six = await serve((_, response) => response.end(bytes), '::1');
    assert.equal(await digestOf(await get(six.origin)), digest(bytes));
  });
}
