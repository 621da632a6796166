import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { sha256 } from './support/image.ts';
import { startRegistry } from './support/program.ts';
import { startScriptedUpstream } from './support/scripted-upstream.ts';
import { until } from './support/until.ts';

const CLIENTS = 48;
const MANIFEST_BYTES = 4 * 2 ** 20;
/** The limit of resident memory: too little for 192 MiB of manifests in addition to the program
 *  itself. */
const LIMIT_BYTES = 300 * 2 ** 20;

function largeManifest(index: number): Buffer {
  const config = { mediaType: 'application/vnd.oci.image.config.v1+json', digest: `sha256:${'0'.repeat(64)}`, size: 2 };
  const document = { schemaVersion: 2, mediaType: 'application/vnd.oci.image.manifest.v1+json', config, layers: [] };
  const pad = 'x'.repeat(MANIFEST_BYTES - 1000);
  return Buffer.from(JSON.stringify({ ...document, annotations: { index: String(index), pad } }));
}

/** Requests a manifest and reads nothing of the answer. */
async function hold(url: string, path: string): Promise<Socket> {
  const socket = connect(Number(new URL(url).port), '127.0.0.1');
  await once(socket, 'connect');
  socket.pause();
  socket.write(`GET /v2/${path} HTTP/1.1\r\nHost: registry\r\n\r\n`);
  return socket;
}

async function peakBytes(pid: number): Promise<number> {
  return 1024 * Number(/^VmHWM:\s+(\d+) kB/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1]);
}

test(`${CLIENTS} clients that ask for manifests of 4 MiB and read nothing take less than 300 MiB, and others are served`, async (context) => {
  await using upstream = await startScriptedUpstream();
  const manifests = Array.from({ length: CLIENTS }, (_, index) => largeManifest(index));
  const digests = manifests.map((bytes, index) => upstream.addManifest('big/image', String(index), bytes));
  for (const kept of [false, true]) {
    await using registry = await startRegistry({ upstreams: { hub: { url: upstream.url } } });
    const get = async (index: number): Promise<string> => {
      const response = await fetch(`${registry.url}/v2/hub/big/image/manifests/${digests[index]}`);
      const bytes = Buffer.from(await response.arrayBuffer());
      return response.status === 200 ? sha256(bytes) : bytes.toString();
    };
    if (kept) for (let index = 0; index < CLIENTS; index++) assert.equal(await get(index), digests[index]);
    const sockets = await Promise.all(digests.map((digest) => hold(registry.url, `hub/big/image/manifests/${digest}`)));
    await delay(3000);
    for (const index of [0, CLIENTS - 1]) await until(async () => (await get(index)) === digests[index], 'another client gets it whole');
    // And they themselves, once they read.
    const first = sockets[0];
    assert.ok(first);
    let received = 0;
    first.on('data', (chunk: Buffer) => (received += chunk.length));
    first.resume();
    await until(() => received > MANIFEST_BYTES - 1000, 'a client that reads at last gets its manifest');
    const peak = await peakBytes(registry.pid);
    for (const socket of sockets) socket.destroy();
    context.diagnostic(`${kept ? 'kept' : 'cold'}: at most ${Math.round(peak / 2 ** 20)} MiB`);
    assert.ok(peak < LIMIT_BYTES, `${kept ? 'kept' : 'cold'}: ${Math.round(peak / 2 ** 20)} MiB`);
  }
});
