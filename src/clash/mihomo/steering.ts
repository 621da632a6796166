import { setTimeout as delay } from 'node:timers/promises';
import { createNodeSearch, TEST_LIMIT_MS, type NodeSearch } from './node-search.ts';
import { createSteeredGroup, type SteeredGroup, type SteeredGroupOptions } from './steered-group.ts';

export interface SteeringOptions extends SteeredGroupOptions {
  /** How often mihomo tests all nodes by itself, in ms. Its results are taken over as often. */
  intervalMs: number;
  /** The node to test first: the one that was in use before. */
  first?: string | undefined;
  /** Called with the name of a node that has failed a test while it was in use, once another one
   *  is in use or none is left. */
  left: (node: string) => void;
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
  /** Tests the node that is preferred now, and uses it if it is alive; without one, uses the
   *  fastest. */
  prefer(): Promise<void>;
  /** The node in use, as last known here. */
  chosen(): string | undefined;
}

/** The time limit for testing the node in use, for which clients wait. */
const CURRENT_LIMIT_MS = 3000;
/** If the node in use is silent for this long, and another one has answered, that one is used. */
const HEDGE_MS = 1000;
const MIN_REFRESH_MS = 5000;
/** The interval between checks while no node is alive. */
const DEAD_PAUSE_MS = 1000;

export function createSteering(options: SteeringOptions): Steering {
  const { intervalMs, left, signal } = options;
  const group = createSteeredGroup(options);
  const search = createNodeSearch({ group, first: options.first, signal });
  const { scores, chosen, verifiedAt } = group;
  let checking: Promise<void> | undefined;
  /** When the last check found no node alive, in ms since 1970. */
  let deadAt = -Infinity;
  const isDead = (): boolean => deadAt > verifiedAt();

  async function checkNow(): Promise<void> {
    const { failed, replaced } = await checkNode(group, search);
    if (failed === undefined) return;
    if (!isDead()) left(failed); // otherwise it has been called for this outage already
    if (replaced) return void (await group.useBest());
    deadAt = Date.now();
    await search.all();
  }

  function check(): Promise<void> {
    if (checking !== undefined) return checking;
    if (isDead() && Date.now() - deadAt < DEAD_PAUSE_MS) return Promise.resolve();
    checking = checkNow()
      .catch(() => undefined) // mihomo has ended
      .finally(() => (checking = undefined));
    return checking;
  }

  /** Takes over the results of mihomo's own tests, and uses the fastest node. */
  async function refresh(): Promise<void> {
    if (search.isRunning() || checking !== undefined) return;
    await group.importTests();
    await group.useBest();
  }

  const timer = setInterval(() => void refresh().catch(() => undefined), Math.max(MIN_REFRESH_MS, intervalMs)).unref(); // mihomo has ended
  signal.addEventListener('abort', () => clearInterval(timer), { once: true });

  return {
    async settle() {
      if ((await group.find().catch(() => undefined)) === undefined) return 'untested';
      const isAlive = () => scores.isAlive(chosen() ?? '');
      if (isAlive()) await check();
      return isAlive() || (await search.all()) ? 'alive' : 'dead';
    },
    check,
    async prefer() {
      const node = options.preferred?.();
      if (node !== undefined) await group.test(node, TEST_LIMIT_MS);
      await group.useBest();
    },
    verifiedAt,
    chosen,
    async complain(node) {
      if (!scores.complain(node) || node !== chosen()) return;
      const other = await search.alternative(node);
      if (other !== undefined) await group.use(other);
    },
  };
}

/** Tests the node in use. While it is in doubt, the first other node that is alive is used.
 *  @returns the node that has failed, and whether another one is in use */
async function checkNode(group: SteeredGroup, search: NodeSearch): Promise<{ failed?: string; replaced: boolean }> {
  const current = (await group.find()) === undefined ? undefined : group.chosen();
  if (current === undefined) {
    await search.all();
    return { replaced: false };
  }
  const testing = group.test(current, CURRENT_LIMIT_MS);
  const quick = await Promise.race([testing, delay(HEDGE_MS, undefined, { ref: false })]);
  if (quick?.outcome === 'alive') return { replaced: false };
  const alternative = search.alternative(current);
  const answered = await Promise.race([testing, alternative]);
  if (typeof answered === 'object' && answered.outcome === 'alive') return { replaced: false };
  const other = await alternative;
  if (other !== undefined) await group.use(other);
  if ((await testing).outcome !== 'alive') return { failed: current, replaced: other !== undefined };
  await group.useBest();
  return { replaced: false };
}
