import { setTimeout as delay } from 'node:timers/promises';
import { backoff } from '../../async/backoff.ts';
import { inParallel } from '../../async/parallel.ts';
import { createSemaphore } from '../../async/semaphore.ts';
import type { Group } from './controller.ts';
import type { Scores } from './scores.ts';
import type { SteeredGroup } from './steered-group.ts';

/** Finds nodes that are alive. */
export interface NodeSearch {
  /** Tests all nodes until one is alive, and makes the group use it; then continues to find the
   *  fastest. Concurrent calls share the result: whether a node is alive. After a search without
   *  result, the next one waits for a while, and the answer is false. Never rejects. */
  all(this: void): Promise<boolean>;
  /** Tests nodes that were alive last concurrently, and returns the first that is alive. */
  alternative(this: void, except: string): Promise<string | undefined>;
  isRunning(this: void): boolean;
}

export interface NodeSearchOptions {
  group: SteeredGroup;
  /** The node to test first: the one that was in use before. */
  first: string | undefined;
  signal: AbortSignal;
}

/** A node that has not answered by then is silent. */
export const TEST_LIMIT_MS = 5000;
/** The first of two rounds over many nodes, so that hundreds of silent ones delay nothing. */
const QUICK_LIMIT_MS = 1500;
/** How many nodes a full test tests at once; more cost memory: 6,000 at once take 170 MiB, 200 take
 *  25. */
const SWEEP_CONCURRENCY = 200;
/** A search begins with so many nodes, and tests the others after `HEAD_START_MS`: where most nodes
 *  live, hundreds of tests at once would only delay the first answer. */
const FIRST_TESTED = 10;
const HEAD_START_MS = 100;
/** Once a node is alive, the others are tested more slowly: clients need the CPU. */
const CALM_CONCURRENCY = 16;
/** Alternatives that are tested while the node in use is in doubt. */
const ALTERNATIVES = 8;
const RETRY = { baseMs: 2000, capMs: 60_000 };

export function createNodeSearch(options: NodeSearchOptions): NodeSearch {
  const { group, first } = options;
  const { scores } = group;
  let running: Promise<boolean> | undefined;
  let failures = 0;
  let nextAt = 0;

  async function testAll(found: () => void): Promise<boolean> {
    const own = await group.find();
    if (own === undefined) return false;
    const names = order(own, scores, [group.chosen(), first]);
    const many = names.length > SWEEP_CONCURRENCY;
    await testUntilFound(options, names, { timeoutMs: many ? QUICK_LIMIT_MS : TEST_LIMIT_MS, found });
    if (many && !names.some((name) => scores.isAlive(name))) await testUntilFound(options, names, { timeoutMs: TEST_LIMIT_MS, found });
    const alive = await group.useBest();
    failures = alive ? 0 : failures + 1;
    nextAt = alive ? 0 : Date.now() + backoff(failures - 1, RETRY);
    return alive;
  }

  return {
    isRunning: () => running !== undefined,
    all() {
      if (running !== undefined) return running;
      if (Date.now() < nextAt) return Promise.resolve(false);
      const found = Promise.withResolvers<boolean>();
      const tested = testAll(() => found.resolve(true))
        .catch(() => false) // mihomo has ended
        .finally(() => (running = undefined));
      running = Promise.race([found.promise, tested]);
      return running;
    },
    alternative: (except) => findAlternative(group, except),
  };
}

/** The first of the best nodes besides `except` that is alive. */
async function findAlternative(group: NodeSearchOptions['group'], except: string): Promise<string | undefined> {
  const { scores } = group;
  const own = await group.find();
  if (own === undefined) return undefined;
  const others = order(own, scores, []).filter((name) => name !== except);
  const tested = others.slice(0, ALTERNATIVES).map(async (name) => {
    if ((await group.test(name, TEST_LIMIT_MS)).outcome !== 'alive' || scores.isAvoided(name)) throw new Error('no alternative');
    return name;
  });
  return Promise.any(tested).catch(() => undefined);
}

/** Tests these nodes, and uses the first that is alive. */
async function testUntilFound(
  { group, signal }: NodeSearchOptions,
  names: readonly string[],
  { timeoutMs, found }: { timeoutMs: number; found: () => void },
): Promise<void> {
  const calm = createSemaphore(CALM_CONCURRENCY);
  const settling = Promise.withResolvers<void>();
  let settled = false;
  async function testOne(name: string): Promise<void> {
    if (signal.aborted) return;
    const test = () => group.test(name, timeoutMs);
    const { outcome } = await (settled ? calm.run(test) : test());
    if (outcome !== 'alive' || group.scores.isAvoided(name) || settled) return;
    settled = true;
    await group.use(name);
    settling.resolve();
    found();
  }
  const begun = inParallel(names.slice(0, FIRST_TESTED), FIRST_TESTED, testOne);
  await Promise.race([begun, settling.promise, delay(HEAD_START_MS, undefined, { ref: false })]);
  await Promise.all([begun, inParallel(names.slice(FIRST_TESTED), SWEEP_CONCURRENCY, testOne)]);
}

/** The order of tests: `ahead`, then the nodes that were alive last by their delay, then the rest
 *  in random order, so that hundreds of dead nodes at the head of a list do not come first. A
 *  fallback group keeps its order. */
function order({ members, type }: Group, scores: Scores, ahead: readonly (string | undefined)[]): string[] {
  const rank = (name: string): number => {
    if (ahead.includes(name)) return -2;
    if (scores.isAlive(name) && !scores.isAvoided(name)) return -1;
    return Math.random();
  };
  const ranked = members.map((name, index) => ({ name, rank: rank(name), delay: type === 'Fallback' ? index : scores.delayOf(name) }));
  return ranked.sort((one, other) => one.rank - other.rank || one.delay - other.delay).map(({ name }) => name);
}
