import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { connect } from 'node:net';
import { parseArgs } from 'node:util';
import { listenOnLoopback } from './support/http.ts';
import { startRegistry } from './support/program.ts';

// npm run names: not part of `npm test`, since it takes minutes. Measures how much memory one
// client can make a registry use by requests for content that does not exist: many distinct tags,
// digests, repositories and hosts (`?ns=`). Fails if the registry has grown by more than
// LIMIT_BYTES.

const LIMIT_BYTES = 160 * 2 ** 20;
const CONNECTIONS = 8;
/** Requests that are sent on one connection before their answers are read. */
const PIPELINED = 50;
/** The requests that fill the caches before the first measurement. */
const WARM_UP = 500;

const { values } = parseArgs({ options: { count: { type: 'string', default: '200000' } } });
const count = Number(values.count);

const KINDS: Record<string, (index: number) => string> = {
  tags: (index) => `/v2/hub/a/b/manifests/tag-${index}`,
  digests: (index) => `/v2/hub/a/b/blobs/sha256:${index.toString(16).padStart(64, '0')}`,
  repositories: (index) => `/v2/hub/a/b-${index}/manifests/latest`,
  hosts: (index) => `/v2/a/b/manifests/latest?ns=host-${index}.example.com`,
  'paths of upstreams': (index) => `/v2/upstream-${index}/b/manifests/latest`,
};

async function residentBytes(pid: number): Promise<number> {
  return 1024 * Number(/^VmRSS:\s+(\d+) kB/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1]);
}

/** Sends the requests for `paths`, PIPELINED at a time. @returns how many answers had which
 *  status */
async function ask(port: number, paths: readonly string[], statuses: Map<string, number>): Promise<void> {
  const socket = connect(port, '127.0.0.1');
  await once(socket, 'connect');
  let rest = '';
  let answered = 0;
  let wake: (() => void) | undefined;
  socket.on('error', () => undefined);
  socket.on('data', (chunk: Buffer) => {
    const text = rest + chunk.toString('latin1');
    for (const [, status = ''] of text.matchAll(/HTTP\/1\.1 (\d{3}) /g)) {
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
      answered++;
    }
    rest = text.slice(-12);
    wake?.();
  });
  socket.on('close', () => wake?.());
  for (let start = 0; start < paths.length && !socket.closed; start += PIPELINED) {
    const batch = paths.slice(start, start + PIPELINED);
    socket.write(batch.map((path) => `GET ${path} HTTP/1.1\r\nHost: registry\r\n\r\n`).join(''));
    while (answered < start + batch.length && !socket.closed) {
      const { promise, resolve } = Promise.withResolvers<void>();
      wake = resolve;
      await promise;
    }
  }
  socket.destroy();
}

async function askAll(port: number, pathOf: (index: number) => string, { from, to }: { from: number; to: number }): Promise<string> {
  const statuses = new Map<string, number>();
  const paths = Array.from({ length: to - from }, (_, index) => pathOf(from + index));
  const share = Math.ceil(paths.length / CONNECTIONS);
  await Promise.all(
    Array.from({ length: CONNECTIONS }, (_, index) => ask(port, paths.slice(index * share, (index + 1) * share), statuses)),
  );
  return [...statuses].map(([status, answers]) => `${answers} × ${status}`).join(', ');
}

const upstream = createServer((_request, response) => {
  response.writeHead(404, { 'content-type': 'application/json' });
  response.end('{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown"}]}');
});
const { url } = await listenOnLoopback(upstream);
try {
  await using registry = await startRegistry({ upstreams: { hub: { url } }, otherHosts: ['*', '!host-*'] });
  const port = Number(new URL(registry.url).port);
  const mebibytes = (bytes: number): number => Math.round(bytes / 2 ** 20);
  for (const pathOf of Object.values(KINDS)) await askAll(port, pathOf, { from: 0, to: WARM_UP });
  const before = await residentBytes(registry.pid);
  for (const [kind, pathOf] of Object.entries(KINDS)) {
    const answers = await askAll(port, pathOf, { from: WARM_UP, to: WARM_UP + count });
    console.log(`${count} ${kind}: ${mebibytes(before)} -> ${mebibytes(await residentBytes(registry.pid))} MiB (${answers})`);
  }
  const metrics = await (await fetch(`${registry.admin}/metrics`)).text();
  console.log(`the metrics have ${metrics.split('\n').length} lines`);
  const grown = (await residentBytes(registry.pid)) - before;
  assert.ok(grown < LIMIT_BYTES, `the registry has grown by ${mebibytes(grown)} MiB, more than ${mebibytes(LIMIT_BYTES)}`);
} finally {
  upstream.closeAllConnections();
  upstream.close();
}
