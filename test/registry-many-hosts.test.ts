import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:https';
import { test } from 'node:test';
import { inParallel } from '../src/async/parallel.ts';
import { makeCertificate } from './support/certificate.ts';
import { startConnectProxy } from './support/connect-proxy.ts';
import { listenOnLoopback } from './support/http.ts';
import { makeImage } from './support/image.ts';
import { startRegistry } from './support/program.ts';
import { temporaryDirectory } from './support/temporary.ts';

// HOSTS=10000 node --test test/registry-many-hosts.test.ts for longer.
const HOSTS = Number(process.env['HOSTS'] ?? 1000);
/** The registry keeps this many upstreams. */
const FEW = 100;
/** Each host whose connections remain would take 30 KiB or more. */
const MAX_GROWTH = 24 * 2 ** 20;
const { root } = makeImage({ architectures: ['amd64'], seed: 'many hosts' });

/** A proxy that connects every host name to one registry. @returns its URL */
async function startWorld(stack: AsyncDisposableStack, tls: { certificate: string; key: string }): Promise<string> {
  const [cert, key] = await Promise.all([readFile(tls.certificate), readFile(tls.key)]);
  const registry = createServer({ cert, key }, ({ url = '' }, response) => {
    if (url === '/v2/') return response.end('{}');
    response.writeHead(200, { 'content-type': root.mediaType, 'docker-content-digest': root.digest, 'content-length': root.size });
    return response.end(root.bytes);
  });
  const { port } = stack.use(await listenOnLoopback(registry));
  return stack.use(await startConnectProxy(port)).url;
}

test(`promise 17: ${HOSTS} hosts, requested one after the other, need no more memory than ${FEW}`, async (t) => {
  await using stack = new AsyncDisposableStack();
  const { path } = stack.use(await temporaryDirectory());
  const tls = await makeCertificate(path, ['*.many.example']);
  const proxy = await startWorld(stack, tls);
  const registry = stack.use(await startRegistry({ otherHosts: ['*'], proxy }, { env: { NODE_EXTRA_CA_CERTS: tls.certificate } }));
  const pull = async (host: number, repository: number): Promise<void> => {
    const response = await fetch(`${registry.url}/v2/h${host}.many.example/team/app-${repository}/manifests/1`);
    assert.equal(response.status, 200, await response.text());
  };
  const megabytes = async (): Promise<number> => (await registry.memory()).resident / 2 ** 20;
  const numbers = Array.from({ length: HOSTS }, (_, n) => n);
  let names = 0;
  /** How much memory as many new names need, on so many hosts. */
  const growth = async (hosts: (n: number) => number): Promise<number> => {
    const before = await megabytes();
    await inParallel(numbers, 8, (n) => pull(hosts(n), names + n));
    names += HOSTS;
    return (await megabytes()) - before;
  };
  await growth((n) => n % FEW); // the code and caches that every registry has
  const few = await growth((n) => n % FEW);
  const many = await growth((n) => FEW + n);
  const seen = `${few.toFixed(0)} MiB more for names of ${FEW} hosts, ${many.toFixed(0)} MiB more for as many names of ${HOSTS} other hosts`;
  t.diagnostic(seen);
  assert.ok((many - few) * 2 ** 20 < MAX_GROWTH, seen);
});
