import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { createServer as createTlsServer } from 'node:tls';
import { promisify } from 'node:util';
import { freePort, temporaryDirectory } from '../../test/support/temporary.ts';
import { debianTool } from '../../test/tools/tools.ts';
import { createTransport } from './undici-transport.ts';
import { describeConnectionError } from './transport.ts';

const run = promisify(execFile);

/** Listens on a free port of 127.0.0.1. */
async function listening(server: Server): Promise<{ port: number } & AsyncDisposable> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket) => sockets.add(socket.on('error', () => undefined)));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

/** A proxy that answers CONNECT with `answer`, and then runs `then`. */
function tunnels(answer: string, then: (socket: Socket, target: string) => void): Server {
  return createServer((socket) => {
    socket.once('data', (head: Buffer) => {
      socket.write(answer);
      then(socket, /^CONNECT (\S+)/.exec(head.toString())?.[1] ?? '');
    });
  });
}

const OPEN = 'HTTP/1.1 200 Connection established\r\n\r\n';

/** The origin that the error of a request blames. */
async function blamed(proxy: string, url: string, ca?: string): Promise<string> {
  const way = createTransport({ proxy, ca });
  try {
    await way.request({ origin: url, path: '/v2/', method: 'GET', headers: {}, signal: AbortSignal.timeout(20_000) });
    return 'nobody';
  } catch (error) {
    return describeConnectionError(error, way, new URL(url)).origin ?? 'unknown';
  } finally {
    await (await way.openDispatcher()).destroy();
  }
}

test('a proxy that is down, refuses, or closes the tunnel without an answer is distinguished from a failing upstream', async () => {
  await using directory = await temporaryDirectory();
  const cert = join(directory.path, 'cert.pem');
  const key = join(directory.path, 'key.pem');
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256'];
  const names = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-days', '2', '-nodes'];
  await run(await debianTool('openssl'), ['req', '-x509', ...curve, '-keyout', key, '-out', cert, ...names]);
  const pair = { cert: await readFile(cert), key: await readFile(key) };

  const relay = (socket: Socket, target: string) => {
    const [, port = ''] = target.split(':');
    const far = connect(Number(port), '127.0.0.1').on('error', () => socket.destroy());
    far.pipe(socket).pipe(far); // a test's proxy: errors need no handling
  };
  await using closing = await listening(tunnels(OPEN, (socket) => socket.end()));
  await using refusing = await listening(tunnels('HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n', (socket) => socket.end()));
  await using working = await listening(tunnels(OPEN, relay));
  // After the handshake of TLS, or in the middle of an answer's head, it can only be the upstream.
  await using cutting = await listening(createTlsServer(pair, (socket) => socket.once('data', () => socket.destroy())));
  await using untrusted = await listening(createTlsServer(pair));
  const proxy = ({ port }: { port: number }) => `http://127.0.0.1:${port}`;
  const gone = `127.0.0.1:${await freePort()}`;

  const cases: [string, string, string, string?][] = [
    ['proxy', `http://${gone}`, 'http://registry.test'],
    ['proxy', `socks5h://${gone}`, 'http://registry.test'],
    ['proxy', proxy(refusing), 'http://registry.test'],
    ['proxy', proxy(closing), 'http://registry.test'],
    ['proxy', proxy(closing), 'https://registry.test'],
    ['upstream', proxy(working), `https://localhost:${cutting.port}`, cert],
    ['upstream', proxy(working), `https://localhost:${untrusted.port}`],
    ['upstream', 'direct', `http://${gone}`],
  ];
  for (const [whom, way, url, ca] of cases) assert.equal(await blamed(way, url, ca), whom, `${url} by ${way}`);
});
