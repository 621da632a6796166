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

test('a thousand nodes that request a blob at once form a tree: two read from the registry, and each node serves at most two others', async () => {
  const tracker = createTracker({ nodes: createAnswering(), log });
  const parents = new Map<string, string>();
  for (let number = 0; number < 1000; number++) {
    const node = nodeOf(number);
    parents.set(node.address, await ask(tracker, node));
  }
  const children = new Map<string, number>();
  for (const parent of parents.values()) children.set(parent, (children.get(parent) ?? 0) + 1);
  assert.equal(Math.max(...children.values()), 2);
  assert.equal(children.get('registry'), 2);
  const depthOf = (address: string): number => (address === 'registry' ? 0 : 1 + depthOf(parents.get(address) ?? 'registry'));
  assert.equal(Math.max(...[...parents.keys()].map(depthOf)), 9);
});

test('nodes that send requests at once, before the registry has probed them, wait for the probes: two read from the registry', async () => {
  const known = createAnswering();
  const answered = new Map<Node, Promise<void>>();
  const usable = new Set<Node>();
  const nodes: Nodes = {
    ...known,
    meet(offered) {
      const node = known.meet(offered);
      if (!answered.has(node))
        answered.set(
          node,
          delay(20 * (1 + (answered.size % 5))).then(() => void usable.add(node)),
        );
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
  const readers = Map.groupBy(parents, (parent) => parent);
  assert.equal(readers.get('registry')?.length, 2);
  for (const [parent, { length }] of readers) assert.ok(length <= 3, `${parent} feeds ${length}`);
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
