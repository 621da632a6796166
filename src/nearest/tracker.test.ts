import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { captureLog } from '../../test/support/log.ts';
import { digestOf } from '../oci/digest.ts';
import type { AgentOffer, SharingNode } from './agreement.ts';
import type { Node, Nodes } from './nodes.ts';
import { createTracker, type Tracker } from './tracker.ts';

const DIGEST = digestOf(Buffer.from('a blob'));
const SIZE = 64 * 2 ** 20;
const { log } = await captureLog();

/** Nodes that answer every probe. */
function createAnswering(): Nodes {
  const known = new Map<string, Node>();
  return {
    meet(node) {
      const found = known.get(node.address) ?? {
        ...node,
        alive: true,
        distrusted: false,
        readers: 0,
        rate: undefined,
        complaints: new Map(),
      };
      known.set(node.address, found);
      return found;
    },
    at: (address) => known.get(address),
    complain: () => undefined,
    isUsable: ({ distrusted }) => !distrusted,
    answer: () => undefined,
    count: () => known.size,
  };
}

function nodeOf(number: number, zone = ''): SharingNode {
  return { address: `10.0.${number >> 8}.${number & 255}:25002`, key: 'k'.repeat(43), zone, keep: 900 };
}

/** @returns the address of the node that it is to read from, or `registry` */
async function ask(tracker: Tracker, node: SharingNode, more: Partial<AgentOffer> = {}): Promise<string> {
  const offer = { s3: false, away: [], failed: undefined, ...more, node };
  const { url } = await tracker.assign(offer, { digest: DIGEST, size: SIZE });
  return url === undefined ? 'registry' : new URL(url).host;
}

/** The hops between a node and the registry. */
function depthOf(address: string, parents: ReadonlyMap<string, string>): number {
  return address === 'registry' ? 0 : 1 + depthOf(parents.get(address) ?? 'registry', parents);
}

/** How many nodes read from each source. */
function readersOf(parents: Iterable<string>): Map<string, number> {
  return new Map([...Map.groupBy(parents, (parent) => parent)].map(([parent, { length }]) => [parent, length]));
}

/** A tracker whose nodes have this bandwidth, in bytes per ms. */
async function createMeasured(rate: number): Promise<Tracker> {
  const tracker = createTracker({ nodes: createAnswering(), log });
  const node = nodeOf(5000);
  const digest = digestOf(Buffer.from('an earlier blob'));
  await tracker.assign({ s3: false, away: [], failed: undefined, node }, { digest, size: SIZE });
  tracker.report({ node, digest, outcome: 'whole', from: undefined, milliseconds: SIZE / rate });
  return tracker;
}

async function askAll(tracker: Tracker, count: number): Promise<Map<string, string>> {
  const parents = new Map<string, string>();
  for (let number = 0; number < count; number++) parents.set(nodeOf(number).address, await ask(tracker, nodeOf(number)));
  return parents;
}

test('nodes read a blob in a chain if it takes long: one reads from the registry, and each of the others from the one before it', async () => {
  const parents = await askAll(await createMeasured(20_000), 32);
  for (let number = 0; number < 32; number++)
    assert.equal(parents.get(nodeOf(number).address), number === 0 ? 'registry' : nodeOf(number - 1).address);
});

for (const { what, rate, fromRegistry, depth } of [
  { what: 'takes long from a tree no deeper than the chain: one reads', rate: 20_000, fromRegistry: 1, depth: 32 },
  { what: 'takes a moment from a wide tree: two read', rate: 2_500_000, fromRegistry: 2, depth: 9 },
]) {
  test(`a thousand nodes read a blob that ${what} from the registry, and each node serves at most two others`, async () => {
    const parents = await askAll(await createMeasured(rate), 1000);
    const readers = readersOf(parents.values());
    assert.equal(readers.get('registry'), fromRegistry);
    assert.equal(Math.max(...readers.values()), 2);
    assert.equal(Math.max(...[...parents.keys()].map((address) => depthOf(address, parents))), depth);
  });
}

test('nodes that send requests at once, before the registry has probed them, wait for the probes: one reads from the registry', async () => {
  const known = createAnswering();
  const answered = new Map<Node, Promise<void>>();
  const usable = new Set<Node>();
  const nodes: Nodes = {
    ...known,
    meet(offered) {
      const node = known.meet(offered);
      if (!answered.has(node)) {
        node.alive = undefined;
        answered.set(
          node,
          delay(20 * (1 + (answered.size % 5))).then(() => void usable.add(Object.assign(node, { alive: true }))),
        );
      }
      return node;
    },
    isUsable: (node) => usable.has(node),
    answer(wanted) {
      const running = wanted.filter((node) => !usable.has(node)).flatMap((node) => answered.get(node) ?? []);
      return running.length === 0 ? undefined : Promise.race(running);
    },
  };
  const tracker = createTracker({ nodes, log });
  const parents = await Promise.all(Array.from({ length: 32 }, (_, number) => ask(tracker, nodeOf(number))));
  const readers = readersOf(parents);
  assert.equal(readers.get('registry'), 1);
  for (const [parent, count] of readers) assert.ok(count <= 3, `${parent} feeds ${count}`);
});

test('a node that repeats its request never reads from a node that reads from it', async () => {
  const tracker = createTracker({ nodes: createAnswering(), log });
  const parents = new Map<string, string>();
  for (let round = 0; round < 20; round++) {
    for (let number = 0; number < 30; number++) {
      const node = nodeOf((number * 7 + round) % 30);
      const parent = parents.get(node.address);
      const failed = parent === undefined || parent === 'registry' ? undefined : { address: parent, how: 'cut' as const };
      parents.set(node.address, await ask(tracker, node, { failed }));
      const seen = new Set<string>();
      for (let at = node.address; at !== 'registry'; at = parents.get(at) ?? 'registry') {
        assert.ok(!seen.has(at), 'a circle');
        seen.add(at);
      }
    }
  }
});

test('nodes of the same zone come first, then those that are not slow', async () => {
  const tracker = createTracker({ nodes: createAnswering(), log });
  const holders = [nodeOf(1, 'a'), nodeOf(2, 'b'), nodeOf(3, 'b')];
  for (const node of holders) {
    await ask(tracker, node);
    tracker.report({ node, digest: DIGEST, outcome: 'whole', from: undefined, milliseconds: 1000 });
  }
  assert.equal(await ask(tracker, nodeOf(4, 'a')), holders[0]?.address);
  assert.ok([holders[1]?.address, holders[2]?.address].includes(await ask(tracker, nodeOf(5, 'b'))));
});

test('a node that no longer has the blob and a node that could not be reached are not offered', async () => {
  const tracker = createTracker({ nodes: createAnswering(), log });
  const [one, two] = [nodeOf(1), nodeOf(2)];
  for (const node of [one, two]) {
    await ask(tracker, node);
    tracker.report({ node, digest: DIGEST, outcome: 'whole', from: undefined, milliseconds: 1000 });
  }
  assert.equal(await ask(tracker, nodeOf(3), { away: [one.address] }), two.address);
  tracker.report({ node: two, digest: DIGEST, outcome: 'gone', from: undefined, milliseconds: 1 });
  assert.equal(await ask(tracker, nodeOf(4), { away: [one.address] }), 'registry');
});

test('a report of wrong bytes counts only from a node that was sent to the reported node', async () => {
  const tracker = createTracker({ nodes: createAnswering(), log });
  const liar = nodeOf(1);
  await ask(tracker, liar);
  tracker.report({ node: liar, digest: DIGEST, outcome: 'whole', from: undefined, milliseconds: 1000 });
  const stranger = nodeOf(9);
  tracker.report({ node: stranger, digest: DIGEST, outcome: 'wrong', from: liar.address, milliseconds: 1000 });
  const reader = nodeOf(2);
  assert.equal(await ask(tracker, reader), liar.address);
  tracker.report({ node: reader, digest: DIGEST, outcome: 'wrong', from: liar.address, milliseconds: 1000 });
  assert.equal(await ask(tracker, nodeOf(3)), 'registry');
});

test('nodes that read from a node with wrong bytes are not offered either, until they ask again', async () => {
  const tracker = await createMeasured(20_000);
  const liar = nodeOf(100);
  await ask(tracker, liar);
  tracker.report({ node: liar, digest: DIGEST, outcome: 'whole', from: undefined, milliseconds: 1000 });
  const parents = await askAll(tracker, 12);
  const isWrong = (address: string): boolean => address === liar.address || (parents.has(address) && isWrong(parents.get(address) ?? ''));
  const reader = [...Array(12).keys()].map((number) => nodeOf(number)).find(({ address }) => parents.get(address) === liar.address);
  assert.ok(reader !== undefined);
  assert.ok([...parents.keys()].filter(isWrong).length > 2, 'some read from the liar through others');
  tracker.report({ node: reader, digest: DIGEST, outcome: 'wrong', from: liar.address, milliseconds: 1000 });
  for (let number = 20; number < 40; number++) {
    const parent = await ask(tracker, nodeOf(number));
    assert.ok(!isWrong(parent), parent);
  }
});

test('a node that its readers have left does not count as a reader of its source', async () => {
  const tracker = await createMeasured(20_000);
  const [source, ...others] = Array.from({ length: 7 }, (_, number) => nodeOf(number));
  assert.ok(source !== undefined);
  await ask(tracker, source);
  const lost: string[] = [];
  for (const node of others) {
    const parent = await ask(tracker, node, { away: lost });
    if (parent === source.address) continue;
    lost.push(parent);
    assert.equal(await ask(tracker, node, { away: lost, failed: { address: parent, how: 'unreachable' } }), source.address);
  }
  assert.equal(lost.length, 5);
});

test('a slow node is avoided, but not the nodes behind it', async () => {
  const tracker = await createMeasured(20_000);
  const [fast, slow, behind] = [nodeOf(1), nodeOf(2), nodeOf(3)];
  assert.deepEqual(
    [await ask(tracker, fast), await ask(tracker, slow), await ask(tracker, behind)],
    ['registry', fast.address, slow.address],
  );
  const tell = (node: SharingNode, from: string | undefined, milliseconds: number): void =>
    tracker.report({ node, digest: DIGEST, outcome: 'whole', from, milliseconds });
  tell(fast, undefined, 3500);
  tell(slow, fast.address, 35_000);
  tell(behind, slow.address, 36_000);
  const sources: string[] = [];
  for (let number = 10; number < 14; number++) sources.push(await ask(tracker, nodeOf(number)));
  assert.ok(sources.includes(fast.address) && sources.includes(behind.address), String(sources));
  assert.ok(!sources.includes(slow.address), String(sources));
});
