import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { once } from 'node:events';
import { createServer } from 'node:https';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { inParallel } from '../src/async/parallel.ts';
import { makeCertificate } from './support/certificate.ts';
import { startConnectProxy } from './support/connect-proxy.ts';
import { listenOnLoopback } from './support/http.ts';
import { makeImage } from './support/image.ts';
import { startRegistry } from './support/program.ts';
import { freePort, temporaryDirectory } from './support/temporary.ts';
import { until } from './support/until.ts';

// HOSTS=10000 node --test test/registry-many-hosts.test.ts for longer.
const HOSTS = Number(process.env['HOSTS'] ?? 1000);
/** The registry keeps this many upstreams. */
const FEW = 100;
/** The objects of one connection that remains take more. */
const MAX_BYTES = 4096;
const { root } = makeImage({ architectures: ['amd64'], seed: 'many hosts' });

interface Outside {
  /** The URL of a proxy that connects every host name to one registry. */
  proxy: string;
  /** Whether that registry has an open connection. Node's server closes unused ones after 5 s. */
  isConnected(this: void): Promise<boolean>;
}

async function startOutside(stack: AsyncDisposableStack, tls: { certificate: string; key: string }): Promise<Outside> {
  const [cert, key] = await Promise.all([readFile(tls.certificate), readFile(tls.key)]);
  const registry = createServer({ cert, key }, ({ url = '' }, response) => {
    if (url === '/v2/') return response.end('{}');
    response.writeHead(200, { 'content-type': root.mediaType, 'docker-content-digest': root.digest, 'content-length': root.size });
    return response.end(root.bytes);
  });
  const { port } = stack.use(await listenOnLoopback(registry));
  const { url: proxy } = stack.use(await startConnectProxy(port));
  return { proxy, isConnected: async () => (await promisify(registry.getConnections.bind(registry))()) > 0 };
}

interface Inspector {
  /** Bytes that live JavaScript objects take. */
  liveHeap(this: void): Promise<number>;
}

async function openInspector(stack: AsyncDisposableStack, port: number): Promise<Inspector> {
  const [target] = (await (await fetch(`http://127.0.0.1:${port}/json/list`)).json()) as { webSocketDebuggerUrl: string }[];
  const socket = new WebSocket(target?.webSocketDebuggerUrl ?? assert.fail());
  stack.defer(() => socket.close());
  await once(socket, 'open');
  async function call(method: string): Promise<{ usedSize?: number }> {
    const answered = once(socket, 'message') as Promise<[{ data: string }]>;
    socket.send(JSON.stringify({ id: 1, method }));
    const [{ data }] = await answered;
    return (JSON.parse(data) as { result: { usedSize?: number } }).result;
  }
  return {
    async liveHeap() {
      await call('HeapProfiler.collectGarbage');
      return (await call('Runtime.getHeapUsage')).usedSize ?? assert.fail();
    },
  };
}

/** The live heap once it shrinks no more: the registry may not have noticed yet that connections are
 *  closed. */
async function settledHeap({ liveHeap }: Inspector): Promise<number> {
  let least = await liveHeap();
  let before = Infinity;
  while (least < before) {
    before = least;
    await delay(1000);
    least = Math.min(before, await liveHeap());
  }
  return least;
}

test(`promise 17: ${HOSTS} hosts, requested one after the other, need no more memory than ${FEW}`, async (t) => {
  await using stack = new AsyncDisposableStack();
  const { path } = stack.use(await temporaryDirectory());
  const tls = await makeCertificate(path, ['*.many.example']);
  const { proxy, isConnected } = await startOutside(stack, tls);
  const port = await freePort();
  const env = { NODE_EXTRA_CA_CERTS: tls.certificate, NODE_OPTIONS: `--inspect=127.0.0.1:${port}` };
  const registry = stack.use(await startRegistry({ otherHosts: ['*'], proxy }, { env }));
  const inspector = await openInspector(stack, port);
  const pull = async (host: number, repository: number): Promise<void> => {
    const response = await fetch(`${registry.url}/v2/h${host}.many.example/team/app-${repository}/manifests/1`);
    assert.equal(response.status, 200, await response.text());
  };
  const numbers = Array.from({ length: HOSTS }, (_, n) => n);
  let names = 0;
  /** Bytes of heap that remain for as many new names, on so many hosts. */
  const growth = async (hosts: (n: number) => number): Promise<number> => {
    const before = await inspector.liveHeap();
    await inParallel(numbers, 8, (n) => pull(hosts(n), names + n));
    names += HOSTS;
    await until(async () => !(await isConnected()), 'unused connections are closed');
    return (await settledHeap(inspector)) - before;
  };
  await growth((n) => n % FEW); // what every registry needs once
  const few = await growth((n) => n % FEW);
  const many = await growth((n) => FEW + n);
  const inKiB = (bytes: number): string => (bytes / HOSTS / 1024).toFixed(1);
  const seen = `${inKiB(few)} KiB for each new name of ${FEW} hosts, ${inKiB(many)} KiB for each of ${HOSTS} other hosts`;
  t.diagnostic(seen);
  assert.ok(many - few < MAX_BYTES * HOSTS, seen);
});
