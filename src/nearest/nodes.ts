import { randomBytes, timingSafeEqual } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { createSemaphore } from '../async/semaphore.ts';
import type { Transport } from '../http/transport.ts';
import { createBody, readAll } from '../io/body.ts';
import type { Log } from '../telemetry/log.ts';
import type { SharingNode } from './agreement.ts';
import { proveKey } from './ticket.ts';

/** The registry's state of a node that shares blobs. */
export interface Node extends SharingNode {
  /** Whether it has answered this registry; undefined: not known yet. */
  alive: boolean | undefined;
  /** It has sent wrong bytes, and is not used again. */
  distrusted: boolean;
  /** How many nodes currently read from it, over all blobs. */
  readers: number;
  /** Bytes per ms that it and its readers received, as a moving average; undefined: not known
   *  yet. */
  rate: number | undefined;
  /** Other nodes that could not reach it: since when, in ms of the monotonic clock. */
  complaints: Map<string, number>;
}

export interface Nodes {
  /** The node with this address and key. A node that has not answered recently is probed at once,
   *  in the background. */
  meet(this: void, node: SharingNode): Node;
  /** The node that currently has this address. */
  at(this: void, address: string): Node | undefined;
  /** `reporter` could not read from the node at this address. */
  complain(this: void, address: string, reporter: string): void;
  /** Whether other nodes may be sent there. */
  isUsable(this: void, node: Node): boolean;
  /** Resolves when one of these nodes has answered a probe, or its time is up. Undefined: no probe
   *  is running. */
  answer(this: void, nodes: readonly Node[]): Promise<void> | undefined;
  /** How many nodes can be reached. */
  count(this: void): number;
}

const MAX_NODES = 10_000;
const MAX_QUESTIONS = 32;
/** How long the result of a probe is valid, in ms. */
const ALIVE_MS = 30_000;
/** How long a node has to answer, in ms. */
const ANSWER_TIMEOUT_MS = 800;
/** How long a complaint counts, in ms. */
const COMPLAINT_MS = 60_000;
/** With complaints of this many different nodes, a node is not used, even if the registry itself
 *  can reach it. */
const MAX_COMPLAINTS = 2;
const MAX_ANSWER_BYTES = 256;

/** The nodes that share blobs. Any client of the registry could send an address with a key. So
 *  before other nodes are sent to an address, the server there has to prove that it has the key. */
export function createNodes({ transport, log }: { transport: Transport; log: Log }): Nodes {
  const nodes = new LRUCache<string, Node>({ maxSize: MAX_NODES, sizeCalculation: () => 1 });
  const current = new LRUCache<string, Node>({ maxSize: MAX_NODES, sizeCalculation: () => 1 });
  const questions = createSemaphore(MAX_QUESTIONS, { maxWaiting: MAX_NODES });
  const asking = new Map<Node, Promise<void>>();
  const askedAt = new WeakMap<Node, number>();

  async function ask(node: Node): Promise<void> {
    const before = node.alive;
    node.alive = await questions.run(() => hasKey(transport, node)).catch(() => false); // refused, silent, cut
    if (before === node.alive) return;
    if (node.alive) {
      current.set(node.address, node);
      log.debug({ event: 'node-shares', address: node.address, zone: node.zone }, 'a node shares blobs');
    } else {
      log.info(
        { event: 'node-unreachable', address: node.address },
        'a node that shares blobs does not answer; not sending other nodes there',
      );
    }
  }

  function check(node: Node): void {
    if (asking.has(node)) return;
    askedAt.set(node, performance.now());
    asking.set(
      node,
      ask(node).finally(() => asking.delete(node)),
    );
  }

  return {
    meet(offered) {
      const id = `${offered.address} ${offered.key}`;
      const known = nodes.get(id);
      const node = known ?? { ...offered, alive: undefined, distrusted: false, readers: 0, rate: undefined, complaints: new Map() };
      node.zone = offered.zone;
      node.keep = offered.keep;
      if (known === undefined) nodes.set(id, node);
      if (performance.now() - (askedAt.get(node) ?? -Infinity) > ALIVE_MS) check(node);
      return node;
    },
    at: (address) => current.get(address),
    complain(address, reporter) {
      const node = current.get(address);
      if (node === undefined) return;
      node.complaints.set(reporter, performance.now());
      node.alive = undefined; // until it has answered again
      check(node);
    },
    isUsable(node) {
      const now = performance.now();
      for (const [reporter, at] of node.complaints) if (now - at > COMPLAINT_MS) node.complaints.delete(reporter);
      return node.alive === true && !node.distrusted && node.complaints.size < MAX_COMPLAINTS;
    },
    answer(wanted) {
      const running = wanted.flatMap((node) => asking.get(node) ?? []);
      return running.length === 0 ? undefined : Promise.race(running);
    },
    count: () => [...current.values()].filter(({ alive }) => alive === true).length,
  };
}

/** Whether the server at the node's address has the node's key. @throws what `transport` throws */
async function hasKey(transport: Transport, { address, key }: SharingNode): Promise<boolean> {
  const nonce = randomBytes(16).toString('hex');
  const signal = AbortSignal.timeout(ANSWER_TIMEOUT_MS);
  const response = await transport.request({
    origin: `http://${address}`,
    path: `/alive?nonce=${nonce}`,
    method: 'GET',
    headers: {},
    signal,
  });
  const proof = await readAll(createBody(response.body, signal), MAX_ANSWER_BYTES);
  const expected = Buffer.from(proveKey(key, nonce));
  return response.statusCode === 200 && proof?.length === expected.length && timingSafeEqual(proof, expected);
}
