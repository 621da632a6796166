import assert from 'node:assert/strict';
import { once } from 'node:events';
import { gzipSync } from 'node:zlib';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import { Agent } from 'undici';
import { ClashError } from './document.ts';
import { download, type DownloadOptions, type Way } from './download.ts';

const seen: IncomingMessage[] = [];
const LIMIT = 2 ** 20;

const ANSWERS: Record<string, (response: ServerResponse) => void> = {
  '/good': (response) => response.setHeader('subscription-userinfo', 'total=1').end('content'),
  '/missing': (response) => response.writeHead(404).end('secret'),
  '/loop': (response) => response.writeHead(302, { location: '/loop' }).end(),
  '/moved': (response) => response.writeHead(301, { location: '/good' }).end(),
  '/away': (response) => response.writeHead(302, { location: `http://localhost:${port()}/good` }).end(),
  '/file': (response) => response.writeHead(302, { location: 'file:///etc/passwd' }).end(),
  '/huge': (response) => response.writeHead(200, { 'content-length': 50 * LIMIT }).write('x'),
  '/endless': (response) => {
    const chunk = Buffer.alloc(64 * 1024);
    const more = (): void => {
      while (!response.destroyed && response.write(chunk));
      response.once('drain', more);
    };
    more();
  },
  '/drip': (response) => {
    const timer = setInterval(() => response.write('x'), 20);
    response.once('close', () => clearInterval(timer));
  },
  '/silent': () => undefined,
  '/cut': (response) => {
    response.writeHead(200, { 'content-length': 100 }).write('x');
    setImmediate(() => response.destroy());
  },
  '/gzip': (response) => response.setHeader('content-encoding', 'gzip').end('x'),
  '/zipped': (response) => response.setHeader('content-encoding', 'utf-8, gzip').end(gzipSync('content')),
  '/zipped-huge': (response) => response.setHeader('content-encoding', 'gzip').end(gzipSync(Buffer.alloc(2 * LIMIT))),
  '/labelled': (response) => response.setHeader('content-encoding', 'utf-8').end('content'),
  '/none': (response) => response.setHeader('content-encoding', 'none').end('content'),
};
const server = createServer((request, response) => {
  seen.push(request);
  ANSWERS[(request.url ?? '').split('?', 1)[0] ?? '']?.(response);
});
const dispatcher = new Agent();
const port = () => (server.address() as AddressInfo).port;

before(async () => {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
});
after(async () => {
  await dispatcher.destroy();
  server.close();
  server.closeAllConnections();
});

async function get(path: string, options: Partial<DownloadOptions> = {}): Promise<string> {
  const open = (): Promise<Agent> => Promise.resolve(dispatcher);
  const way: Way = { open, openOutside: open };
  const url = `http://user:passw0rd@127.0.0.1:${port()}${path}?token=supersecret`;
  const { bytes } = await download(
    url,
    { way, headers: { 'user-agent': 'me', 'x-key': 'k' }, limit: LIMIT, ...options },
    AbortSignal.timeout(20_000),
  );
  return Buffer.from(bytes).toString();
}

test('a document is requested with the configured headers, also after a redirect', async () => {
  assert.equal(await get('/good'), 'content');
  const { headers, url } = seen.at(-1) ?? assert.fail();
  assert.deepEqual([headers['user-agent'], headers['x-key'], headers['accept-encoding']], ['me', 'k', 'identity']);
  assert.equal(headers.authorization, `Basic ${Buffer.from('user:passw0rd').toString('base64')}`);
  assert.equal(url, '/good?token=supersecret');
  assert.equal(await get('/moved'), 'content');
  for (const path of ['/zipped', '/labelled', '/none']) assert.equal(await get(path), 'content', path);
});

const WRONG: [string, RegExp, Partial<DownloadOptions>?][] = [
  ['/missing', /answered with 404/],
  ['/loop', /more than 5 times/],
  ['/file', /redirects to file/],
  ['/away', /internal address/],
  ['/good', /internal address/, { foreign: true }],
  ['/huge', /more than 1 MiB/],
  ['/endless', /more than 1 MiB/],
  ['/drip', /did not arrive within 0.3 s/, { timeLimit: 300 }],
  ['/silent', /did not arrive within 0.3 s/, { timeLimit: 300 }],
  ['/cut', /cannot be reached/],
  ['/gzip', /labelled as gzip but is not/],
  ['/zipped-huge', /more than 1 MiB/],
];

for (const [path, expected, options = {}] of WRONG) {
  test(`${path}${options.foreign === true ? ' of somebody else' : ''} is refused within its limits, and no part of the URL is revealed`, async () => {
    await assert.rejects(get(path, options), (error: unknown) => {
      assert.ok(error instanceof ClashError);
      assert.match(error.message, expected);
      assert.doesNotMatch(error.message, /secret|passw0rd|127\.0|good/);
      return true;
    });
  });
}
