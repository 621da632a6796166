import assert from 'node:assert/strict';
import type { ServerResponse } from 'node:http';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { AGENT_HEADER, formatOffer, parsePlace, PLACE_HEADER } from '../src/nearest/agreement.ts';
import { startFakeNode, type FakeNode } from './support/fake-node.ts';
import { makeImage } from './support/image.ts';
import { readBlob, startNodes } from './support/nodes.ts';
import { startAgent, startRegistry, type ServingProgram } from './support/program.ts';
import { metric } from './support/replicas.ts';
import { startScriptedUpstream } from './support/scripted-upstream.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { askAsStranger } from './support/stranger.ts';
import { until } from './support/until.ts';

const MiB = 2 ** 20;
const LAYER_BYTES = 6 * MiB;
/** Far more than the second that a failed source may cost, since the machine may be busy. */
const SOON_MS = 15_000;

const stack = new AsyncDisposableStack();
after(() => stack.disposeAsync());
const upstream = stack.use(await startScriptedUpstream());
const knows = { upstreams: { dockerhub: { url: upstream.url } } };
const { path } = stack.use(await temporaryDirectory());
const registry = stack.use(await startRegistry({ storage: { filesystem: { directory: join(path, 'data') } }, ...knows }));
const { all: nodes } = stack.use(await startNodes({ registry: registry.url, knows, count: 4 }));
await until(() => nodes.every((node) => node.log().some(({ event }) => event === 'sharing-blobs')), 'all nodes share');
const [first, second] = nodes;
assert.ok(first !== undefined && second !== undefined);
let images = 0;

interface Layer {
  digest: string;
  bytes: Buffer;
  size: number;
  /** On a node or at the registry. */
  url(at: ServingProgram): string;
}

/** The layer of a new image whose manifest the registry has served, as before every pull. `warm`:
 *  the registry has the layer too. */
async function addLayer({ warm = true, size = LAYER_BYTES } = {}): Promise<Layer> {
  const name = `library/demo-${++images}`;
  const image = makeImage({ architectures: ['amd64'], layers: [size], seed: name });
  upstream.add(name, '1', image);
  assert.equal((await fetch(`${registry.url}/v2/dockerhub/${name}/manifests/1`)).status, 200);
  const [layer] = image.platforms[0]?.layers ?? [];
  assert.ok(layer !== undefined);
  const url = (at: ServingProgram): string => `${at.url}/v2/dockerhub/${name}/blobs/${layer.digest}`;
  if (warm) await readBlob(url(registry));
  return { ...layer, url };
}

/** A node that is named for a layer before any other: it has the layer, as far as the registry
 *  knows. */
async function startHolder(layer: Layer, give: FakeNode['give']): Promise<FakeNode> {
  const fake = await startFakeNode();
  fake.give = give;
  assert.equal(await fake.claim(layer.url(registry)), 200);
  await until(async () => (await fake.claim(layer.url(registry))) === 200 && (await isNamed(layer, fake)), 'the registry names the node');
  return fake;
}

/** Whether the registry would send a new node there. */
async function isNamed(layer: Layer, { node }: FakeNode): Promise<boolean> {
  const { location } = await askAsStranger(layer.url(registry));
  return location.startsWith(`http://${node.address}/`);
}

async function sharedByAll(): Promise<number> {
  const shared = await Promise.all(nodes.map((node) => metric(node.admin, 'agent_shared_bytes_total')));
  return shared.reduce((sum, bytes) => sum + bytes);
}

function sendPart(response: ServerResponse, bytes: Buffer, count: number): void {
  response.writeHead(200, { 'content-length': bytes.length });
  response.write(bytes.subarray(0, count));
}

test('promise 24: nodes that pull a cold image at once read it from each other while it comes, and upstream sends it once', async () => {
  const former = await addLayer();
  for (const node of nodes) await readBlob(former.url(node)); // the registry knows all nodes from here on
  const layer = await addLayer({ warm: false });
  upstream.behave = ({ path }) => (path.includes('/blobs/') ? { rate: 3 * MiB } : {});
  const before = {
    registry: await metric(registry.admin, 'sent_bytes_total', 'dockerhub'),
    upstream: upstream.blobBytes(),
    shared: await sharedByAll(),
  };
  const read = await Promise.all(nodes.map((node) => readBlob(layer.url(node))));
  upstream.behave = () => ({});
  assert.deepEqual(
    read.map(({ digest }) => digest),
    nodes.map(() => layer.digest),
  );
  assert.ok(upstream.blobBytes() - before.upstream < 1.1 * layer.size, 'one copy from upstream');
  const copies = ((await metric(registry.admin, 'sent_bytes_total', 'dockerhub')) - before.registry) / layer.size;
  assert.ok(copies < nodes.length, `the registry sent ${copies} copies`);
  assert.ok((await sharedByAll()) - before.shared >= layer.size, 'other nodes sent the rest');
});

test('promise 24: a node that sends wrong bytes is detected, none of its bytes are accepted, and it is not used again', async () => {
  const layer = await addLayer();
  await using liar = await startHolder(layer, (response, size) => {
    response.writeHead(200, { 'content-length': size });
    response.end(Buffer.alloc(size, 7));
  });
  const asked = liar.asked;
  await assert.rejects(readBlob(layer.url(first)), 'the end of wrong bytes is withheld, and the connection cut');
  assert.equal(liar.asked, asked + 1);
  assert.equal((await readBlob(layer.url(first))).digest, layer.digest, 'and the next attempt is right');
  const other = await addLayer();
  await liar.claim(other.url(registry));
  assert.equal((await readBlob(other.url(second))).digest, other.digest);
  assert.equal(liar.asked, asked + 1, 'for no blob');
  assert.ok(registry.log().some(({ event, address }) => event === 'node-distrusted' && address === liar.node.address));
});

const FAILURES: Record<string, (layer: Layer, fake: () => FakeNode) => FakeNode['give']> = {
  'cuts the connection in the middle': (layer) => (response) => {
    sendPart(response, layer.bytes, 2 * MiB);
    setTimeout(() => response.destroy(), 200);
  },
  'loses its power in the middle': (layer, fake) => (response) => {
    sendPart(response, layer.bytes, 2 * MiB);
    fake().dead = true;
  },
  'accepts connections and never answers': () => () => undefined,
  'has the blob no longer': () => (response) => void response.writeHead(404).end(),
  'announces another size': () => (response) => void response.writeHead(200, { 'content-length': 10 }).end('0123456789'),
};
for (const [name, failure] of Object.entries(FAILURES)) {
  test(`promise 24: a node that ${name} costs a moment, and no client notices`, async () => {
    const layer = await addLayer();
    let fake: FakeNode | undefined;
    await using holder = await startHolder(
      layer,
      failure(layer, () => fake as FakeNode),
    );
    fake = holder;
    const { digest, last } = await readBlob(layer.url(first));
    assert.equal(digest, layer.digest);
    assert.ok(holder.asked > 0, 'it was asked');
    assert.ok(last < SOON_MS, `${Math.round(last)} ms`);
  });
}

test('promise 24: a node whose port is blocked is not named to others', async () => {
  const layer = await addLayer();
  await using fake = await startFakeNode();
  fake.dead = true;
  await fake.claim(layer.url(registry));
  await until(async () => !(await isNamed(layer, fake)), 'the registry has asked it in vain');
  for (let count = 0; count < 4; count++) assert.ok(!(await isNamed(layer, fake)));
  assert.equal((await readBlob(layer.url(second))).digest, layer.digest);
});

test('promise 24: an agent sends no byte without a ticket that is valid for this blob, this node and this time', async () => {
  const layer = await addLayer();
  await readBlob(layer.url(first));
  await until(async () => (await askAsStranger(layer.url(registry))).location !== '', 'a node is named');
  const { location } = await askAsStranger(layer.url(registry));
  const ticket = new URL(location);
  const given = await fetch(ticket);
  assert.equal(given.status, 200);
  assert.ok(layer.bytes.equals(Buffer.from(await given.arrayBuffer())));
  const refused = async (change: (url: URL) => void): Promise<number> => {
    const url = new URL(ticket);
    change(url);
    const response = await fetch(url);
    await response.body?.cancel();
    return response.status;
  };
  const other = await addLayer();
  const changes: ((url: URL) => void)[] = [
    (url) => (url.search = ''),
    (url) => url.searchParams.delete('ticket'),
    (url) => url.searchParams.set('ticket', 'f'.repeat(64)),
    (url) => url.searchParams.set('ticket', 'é'.repeat(64)),
    (url) => url.searchParams.set('until', String(Number(url.searchParams.get('until')) + 1)),
    (url) => url.searchParams.set('until', '1'),
    (url) => url.searchParams.set('size', '1'),
    (url) => (url.pathname = `/shared/${other.digest}`),
    (url) => (url.pathname = '/shared/../../etc/passwd'),
    (url) => (url.pathname = '/'),
    (url) => (url.host = (nodes.find(({ shares }) => shares !== ticket.host) ?? assert.fail()).shares),
  ];
  for (const change of changes) assert.equal(await refused(change), 403, String(change));
  assert.equal((await fetch(ticket, { method: 'POST' })).status, 405);
});

test('promise 24: tickets are issued only to clients that may pull the blob under the requested name', async () => {
  const layer = await addLayer();
  await readBlob(layer.url(first));
  await until(async () => (await askAsStranger(layer.url(registry))).status === 307, 'a node is named under the right name');
  upstream.behave = ({ path }) => (path.includes('/other/') ? { status: 404 } : {});
  const elsewhere = layer.url(registry).replace(/demo-\d+/, 'other');
  for (const url of [elsewhere, elsewhere.replace('dockerhub', 'quay'), elsewhere.replace('dockerhub', 'nowhere')]) {
    const { status, location } = await askAsStranger(url);
    assert.notEqual(status, 307, url);
    assert.notEqual(status, 200, url);
    assert.equal(location, '');
  }
  upstream.behave = () => ({});
});

test('promise 24: clients that are no agents see no difference, and neither do HEAD and ranges', async () => {
  const layer = await addLayer();
  await readBlob(layer.url(first));
  await until(async () => (await askAsStranger(layer.url(registry))).status === 307, 'agents are redirected');
  const plain = await fetch(layer.url(registry), { redirect: 'manual' });
  assert.deepEqual([plain.status, plain.headers.get(PLACE_HEADER)], [200, null]);
  await plain.body?.cancel();
  const headers = { [AGENT_HEADER]: formatOffer({ node: undefined, s3: true, away: [], failed: undefined }) };
  const head = await fetch(layer.url(registry), { method: 'HEAD', headers, redirect: 'manual' });
  assert.deepEqual([head.status, head.headers.get('content-length')], [200, String(layer.size)]);
  const garbage = await askAsStranger(layer.url(registry), 'node=nowhere&key=%%%');
  assert.deepEqual([garbage.status, garbage.location, parsePlace(garbage.place ?? '')?.kind], [200, '', 'registry']);
  const part = await fetch(layer.url(second), { headers: { range: `bytes=${layer.size - 10}-` } });
  assert.deepEqual([part.status, Buffer.from(await part.arrayBuffer())], [206, layer.bytes.subarray(-10)]);
});

test('promise 24: an agent of a registry that does not know other places reads from it as before', async () => {
  await using former = await startScriptedUpstream();
  const image = makeImage({ architectures: ['amd64'], layers: [2 * MiB] });
  former.add('dockerhub/library/demo', '1', image);
  const [layer] = image.platforms[0]?.layers ?? [];
  await using agent = await startAgent({ registry: former.url, fallback: false });
  const { digest } = await readBlob(`${agent.url}/v2/dockerhub/library/demo/blobs/${layer?.digest}`);
  assert.equal(digest, layer?.digest);
});

test('promise 24: transfers between nodes go on when the registry dies', async () => {
  const layer = await addLayer();
  await using slow = await startNodes({ registry: registry.url, knows, count: 1, share: { rate: 2 * MiB } });
  const [giver] = slow.all;
  assert.ok(giver !== undefined);
  await until(() => giver.log().some(({ event }) => event === 'sharing-blobs'), 'it shares');
  await readBlob(layer.url(giver));
  await until(async () => (await askAsStranger(layer.url(registry))).location.includes(giver.shares), 'it is named');
  const before = await metric(second.admin, 'agent_received_bytes_total', 'node');
  const asked = upstream.requests.length;
  const reading = readBlob(layer.url(second));
  await until(async () => (await metric(second.admin, 'agent_received_bytes_total', 'node')) > before, 'the node sends');
  await registry.stop('SIGKILL');
  assert.equal((await reading).digest, layer.digest);
  assert.equal(await metric(second.admin, 'agent_received_bytes_total', 'node'), before + layer.size);
  assert.equal(upstream.requests.length, asked, 'nothing came from upstream');
});
