import { setTimeout as delay } from 'node:timers/promises';
import { backoff } from '../../async/backoff.ts';
import { inParallel } from '../../async/parallel.ts';
import { createSemaphore } from '../../async/semaphore.ts';
import { fieldsOf, itemsOf, type Fields } from '../../io/untrusted.ts';
import type { Controller, Group, Member, TestResult } from './controller.ts';
import { createScores, type Scores } from './scores.ts';

export interface SteeringOptions {
  controller: Controller;
  /** The name of the group for traffic that no rule matches. */
  main: string;
  /** In mode nodes, the group's nodes are those of providers; elsewhere a node of that name among
   *  the config's own comes first. */
  preferProviders: boolean;
  /** How often mihomo tests all nodes by itself, in ms. Its results are taken over as often. */
  intervalMs: number;
  /** The node to test first: the one that was in use before. */
  first?: string | undefined;
  /** The node that somebody has chosen; undefined: the fastest one. */
  preferred?: () => string | undefined;
  /** Called with the name of a node that has failed a test while it was in use, once another one
   *  is in use or none is left. */
  left: (node: string) => void;
  signal: AbortSignal;
}

/** Keeps a group on a node that works. mihomo tests nodes at an interval, 10 at a time and for 5
 *  s each, and keeps a node that has fallen silent until its next turn. This tests the node in
 *  use whenever there is a reason, and looks for another one at once. */
export interface Steering {
  /** Tests the nodes until one is alive, and makes the group use it; then continues to find the
   *  fastest. `untested`: there is no group, or it tests nothing. */
  settle(): Promise<'alive' | 'dead' | 'untested'>;
  /** Tests the node in use, and switches to another if it fails. Concurrent calls share the
   *  result. */
  check(): Promise<void>;
  /** When the node in use was last seen to be alive, in ms since 1970. */
  verifiedAt(): number;
  /** A download through this node was cut, starved or refused. After enough of them, the node is
   *  avoided for some minutes. */
  complain(node: string): Promise<void>;
  /** Tests the node that is preferred now, and uses it if it is alive; without one, uses the fastest. */
  prefer(): Promise<void>;
  /** The node in use, as last known here. */
  chosen(): string | undefined;
}

/** A node that has not answered by then is silent. */
const TEST_LIMIT_MS = 5000;
/** The time limit for testing the node in use, for which clients wait. */
const CURRENT_LIMIT_MS = 3000;
/** If the node in use is silent for this long, and another one has answered, that one is used. */
const HEDGE_MS = 1000;
/** How many nodes a full test tests at once; more cost memory: 6,000 at once take 170 MiB, 200 take
 *  25. */
const SWEEP_CONCURRENCY = 200;
/** Once a node is alive, the others are tested more slowly: clients need the CPU. */
const CALM_CONCURRENCY = 16;
/** The first of two rounds over many nodes, so that hundreds of silent ones delay nothing. */
const QUICK_LIMIT_MS = 1500;
/** Alternatives that are tested while the node in use is in doubt. */
const ALTERNATIVES = 8;
const MIN_REFRESH_MS = 5000;
const SWEEP_RETRY = { baseMs: 2000, capMs: 60_000 };
/** The interval between checks while no node is alive. */
const DEAD_PAUSE_MS = 1000;
const REFUSING = new Set(['REJECT', 'REJECT-DROP', 'COMPATIBLE']);
/** Groups have groups as members; this deep at most. */
const MAX_DEPTH = 10;

export function createSteering(options: SteeringOptions): Steering {
  const { controller, main, preferProviders, intervalMs, first, preferred = () => undefined, left, signal } = options;
  const scores = createScores();
  let prepared: Promise<{ group: Group; memberOf: (name: string) => Member } | undefined> | undefined;
  let chosen: string | undefined;
  let verifiedAt = 0;
  let checking: Promise<void> | undefined;
  let searching: Promise<boolean> | undefined;
  /** Since when no node is alive, in ms since 1970. */
  let deadSince: number | undefined;
  let failedSweeps = 0;
  let nextSweepAt = 0;

  /** The innermost group on the path from the main one: its choice is a node. Undefined: the main
   *  one is not a group, or has no choice. */
  async function findGroup(): Promise<Group | undefined> {
    let found = await controller.group(main);
    for (let depth = 0; found !== undefined && depth < MAX_DEPTH; depth++) {
      const inner = found.now === '' ? undefined : await controller.group(found.now);
      if (inner === undefined) break;
      found = inner;
    }
    return found;
  }

  async function prepare() {
    const [group, providers] = await Promise.all([findGroup(), controller.providers()]);
    // An empty group refuses, and there is nothing to test.
    if (group === undefined || group.testUrl === '' || group.members.every((name) => REFUSING.has(name))) return undefined;
    const own = preferProviders ? new Set<string>() : await controller.ownNames();
    const memberOf = (name: string): Member => ({ name, provider: own.has(name) ? undefined : providers.get(name) });
    chosen = group.now === '' ? undefined : group.now;
    return { group, memberOf };
  }

  const target = () =>
    (prepared ??= prepare().catch((error: unknown) => {
      prepared = undefined;
      throw error;
    }));

  async function test(name: string, timeoutMs: number): Promise<TestResult> {
    const known = await target();
    if (known === undefined) return { outcome: 'dead' };
    const { group, memberOf } = known;
    const { testUrl: url, expectedStatus } = group;
    const result = await controller
      .testNode(memberOf(name), { url, expectedStatus, timeoutMs })
      .catch((): TestResult => ({ outcome: 'dead' }));
    scores.record(name, result);
    if (result.outcome === 'alive' && name === chosen) verified();
    return result;
  }

  function verified(): void {
    verifiedAt = Date.now();
    deadSince = undefined;
  }

  async function use(name: string): Promise<void> {
    const known = await target();
    if (known === undefined || signal.aborted) return;
    if (['URLTest', 'Fallback'].includes(known.group.type) || name === preferred()) await controller.choose(known.group.name, name);
    if (name !== chosen) verified();
    chosen = name;
  }

  /** Makes the group use the best live node. False: there is none. */
  async function useBest(): Promise<boolean> {
    const known = await target();
    if (known === undefined) return false;
    const best = scores.best(known.group.members, {
      inOrder: known.group.type === 'Fallback',
      current: chosen,
      preferred: preferred(),
    });
    if (best === undefined) return false;
    if (best !== chosen || !scores.isAlive(best)) await use(best);
    return scores.isAlive(best);
  }

  /** Tests these nodes, and uses the first that is alive. */
  async function sweep(names: readonly string[], timeoutMs: number, found: () => void): Promise<void> {
    const calm = createSemaphore(CALM_CONCURRENCY);
    let settled = false;
    await inParallel(names, SWEEP_CONCURRENCY, async (name) => {
      if (signal.aborted) return;
      const { outcome } = await (settled ? calm.run(() => test(name, timeoutMs)) : test(name, timeoutMs));
      if (outcome !== 'alive' || scores.isAvoided(name) || settled) return;
      settled = true;
      await use(name);
      found();
    });
  }

  async function sweepAll(found: () => void): Promise<boolean> {
    const known = await target();
    if (known === undefined) return false;
    const names = order(known.group, scores, [chosen, first]);
    const many = names.length > SWEEP_CONCURRENCY;
    await sweep(names, many ? QUICK_LIMIT_MS : TEST_LIMIT_MS, found);
    if (many && !names.some((name) => scores.isAlive(name))) await sweep(names, TEST_LIMIT_MS, found);
    const alive = await useBest();
    failedSweeps = alive ? 0 : failedSweeps + 1;
    nextSweepAt = alive ? 0 : Date.now() + backoff(failedSweeps - 1, SWEEP_RETRY);
    return alive;
  }

  /** Tests all nodes, unless that failed a moment ago. Concurrent calls share the result: whether a
   *  node is alive, as soon as one is. */
  function search(): Promise<boolean> {
    if (searching !== undefined) return searching;
    if (Date.now() < nextSweepAt) return Promise.resolve(false);
    const found = Promise.withResolvers<boolean>();
    const swept = sweepAll(() => found.resolve(true))
      .catch(() => false) // mihomo has ended
      .finally(() => (searching = undefined));
    searching = Promise.race([found.promise, swept]);
    return searching;
  }

  /** Tests nodes that were alive last concurrently, and returns the first that is alive. */
  async function findAlternative(except: string): Promise<string | undefined> {
    const known = await target();
    if (known === undefined) return undefined;
    const others = order(known.group, scores, []).filter((name) => name !== except);
    const tested = others.slice(0, ALTERNATIVES).map(async (name) => {
      if ((await test(name, TEST_LIMIT_MS)).outcome !== 'alive' || scores.isAvoided(name)) throw new Error('no alternative');
      return name;
    });
    return Promise.any(tested).catch(() => undefined);
  }

  async function checkNow(): Promise<void> {
    const known = await target();
    const current = chosen;
    if (known === undefined || current === undefined) {
      await search();
      return;
    }
    const testing = test(current, CURRENT_LIMIT_MS);
    const quick = await Promise.race([testing, delay(HEDGE_MS, undefined, { ref: false })]);
    if (quick?.outcome === 'alive') return;
    const alternative = findAlternative(current);
    const answered = await Promise.race([testing, alternative]);
    if (typeof answered === 'object' && answered.outcome === 'alive') return;
    const other = await alternative;
    if (other !== undefined) await use(other);
    if ((await testing).outcome === 'alive') return void (await useBest());
    if (deadSince === undefined) left(current);
    deadSince = other === undefined ? Date.now() : undefined;
    if (other !== undefined) return void (await useBest());
    await search();
  }

  /** Imports the results of mihomo's own tests, and uses the fastest node. */
  async function refresh(): Promise<void> {
    const known = await target();
    if (known === undefined || searching !== undefined || checking !== undefined) return;
    const { members, testUrl } = known.group;
    const proxies = await controller.proxies();
    for (const name of members) {
      const result = resultOf(proxies[name], testUrl);
      if (result !== undefined) scores.record(name, result);
    }
    await useBest();
  }

  const timer = setInterval(() => void refresh().catch(() => undefined), Math.max(MIN_REFRESH_MS, intervalMs)).unref(); // mihomo has ended
  signal.addEventListener('abort', () => clearInterval(timer), { once: true });

  function check(): Promise<void> {
    if (checking !== undefined) return checking;
    if (deadSince !== undefined && Date.now() - deadSince < DEAD_PAUSE_MS) return Promise.resolve();
    checking = checkNow()
      .catch(() => undefined) // mihomo has ended
      .finally(() => (checking = undefined));
    return checking;
  }

  return {
    async settle() {
      if ((await target().catch(() => undefined)) === undefined) return 'untested';
      if (chosen !== undefined && scores.isAlive(chosen)) await check();
      if (chosen !== undefined && scores.isAlive(chosen)) return 'alive';
      return (await search()) ? 'alive' : 'dead';
    },
    check,
    async prefer() {
      const name = preferred();
      if (name !== undefined) await test(name, TEST_LIMIT_MS);
      await useBest();
    },
    verifiedAt: () => verifiedAt,
    chosen: () => chosen,
    async complain(node) {
      if (!scores.complain(node) || node !== chosen) return;
      const other = await findAlternative(node);
      if (other !== undefined) await use(other);
    },
  };
}

/** The last result of a test of `url`, as mihomo's list of proxies shows it. Undefined: there is
 *  none. */
function resultOf(proxy: Fields | undefined, url: string): TestResult | undefined {
  const state = fieldsOf(fieldsOf(proxy?.['extra'])[url]);
  const last = itemsOf(state['history']).at(-1);
  if (last === undefined) return undefined;
  const delayMs = Number(last['delay']);
  if (state['alive'] === true && delayMs > 0) return { outcome: 'alive', delayMs };
  return { outcome: proxy?.['alive'] === true ? 'unexpected' : 'dead' };
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
