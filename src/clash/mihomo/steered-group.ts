import { fieldsOf, itemsOf, type Fields } from '../../io/untrusted.ts';
import type { Controller, Group, Member, TestResult } from './controller.ts';
import { createScores, type Scores } from './scores.ts';

export interface SteeredGroupOptions {
  controller: Controller;
  /** The name of the group for traffic that no rule matches. */
  main: string;
  /** In mode nodes, the group's nodes are those of providers; elsewhere a node of that name among
   *  the config's own comes first. */
  preferProviders: boolean;
  /** The node that a user has selected; undefined: the fastest one. */
  preferred?: () => string | undefined;
  signal: AbortSignal;
}

/** The group whose node is selected by this program, with the test results of its nodes. Every
 *  asynchronous method but `test` @throws Error: mihomo does not answer */
export interface SteeredGroup {
  readonly scores: Scores;
  /** The group. Undefined: there is none, or it tests nothing. */
  find(this: void): Promise<Group | undefined>;
  /** Tests a node, and records the result. */
  test(this: void, node: string, timeoutMs: number): Promise<TestResult>;
  /** Makes the group use a node. */
  use(this: void, node: string): Promise<void>;
  /** Makes the group use the best live node. False: there is none. */
  useBest(this: void): Promise<boolean>;
  /** Records the results of mihomo's own tests. */
  importTests(this: void): Promise<void>;
  /** The node in use, as last known here. */
  chosen(this: void): string | undefined;
  /** When the node in use was last seen to be alive, in ms since 1970. */
  verifiedAt(this: void): number;
}

/** A group, and how to address its members. */
interface Found {
  group: Group;
  memberOf(this: void, name: string): Member;
}

const REFUSING = new Set(['REJECT', 'REJECT-DROP', 'COMPATIBLE']);
/** The types of groups in which this program selects all members. */
const CHOOSABLE = ['URLTest', 'Fallback'];
/** Groups have groups as members; this deep at most. */
const MAX_DEPTH = 10;

export function createSteeredGroup(options: SteeredGroupOptions): SteeredGroup {
  const { controller, preferred = () => undefined, signal } = options;
  const scores = createScores();
  let finding: Promise<Found | undefined> | undefined;
  let chosen: string | undefined;
  let verifiedAt = 0;

  async function prepare(): Promise<Found | undefined> {
    try {
      const found = await findSteered(options);
      chosen = found === undefined || found.group.now === '' ? undefined : found.group.now;
      return found;
    } catch (error) {
      finding = undefined; // the next call tries again
      throw error;
    }
  }

  const find = () => (finding ??= prepare());

  async function use(node: string): Promise<void> {
    const found = await find();
    if (found === undefined || signal.aborted) return;
    if (CHOOSABLE.includes(found.group.type) || node === preferred()) await controller.choose(found.group.name, node);
    if (node !== chosen) verifiedAt = Date.now();
    chosen = node;
  }

  return {
    scores,
    find: async () => (await find())?.group,
    use,
    chosen: () => chosen,
    verifiedAt: () => verifiedAt,
    async test(node, timeoutMs) {
      const found = await find();
      if (found === undefined) return { outcome: 'dead' };
      const { testUrl: url, expectedStatus } = found.group;
      const test = { url, expectedStatus, timeoutMs };
      const result = await controller.testNode(found.memberOf(node), test).catch((): TestResult => ({ outcome: 'dead' }));
      scores.record(node, result);
      if (result.outcome === 'alive' && node === chosen) verifiedAt = Date.now();
      return result;
    },
    async useBest() {
      const group = (await find())?.group;
      const best = group && scores.best(group.members, { inOrder: group.type === 'Fallback', current: chosen, preferred: preferred() });
      if (best === undefined) return false;
      if (best !== chosen || !scores.isAlive(best)) await use(best);
      return scores.isAlive(best);
    },
    async importTests() {
      const group = (await find())?.group;
      const proxies = group === undefined ? {} : await controller.proxies();
      for (const node of group?.members ?? []) {
        const result = resultOf(proxies[node], group?.testUrl ?? '');
        if (result !== undefined) scores.record(node, result);
      }
    },
  };
}

async function findSteered({ controller, main, preferProviders }: SteeredGroupOptions): Promise<Found | undefined> {
  const [group, providers] = await Promise.all([findInnermost(controller, main), controller.providers()]);
  // An empty group refuses, and there is nothing to test.
  if (group === undefined || group.testUrl === '' || group.members.every((name) => REFUSING.has(name))) return undefined;
  const own = preferProviders ? new Set<string>() : await controller.ownNames();
  return { group, memberOf: (name) => ({ name, provider: own.has(name) ? undefined : providers.get(name) }) };
}

/** The innermost group on the path from the main one: its choice is a node. Undefined: the main one
 *  is not a group, or has no choice. */
async function findInnermost(controller: Controller, main: string): Promise<Group | undefined> {
  let found = await controller.group(main);
  for (let depth = 0; found !== undefined && depth < MAX_DEPTH; depth++) {
    const inner = found.now === '' ? undefined : await controller.group(found.now);
    if (inner === undefined) break;
    found = inner;
  }
  return found;
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
