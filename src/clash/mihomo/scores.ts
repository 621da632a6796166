import type { TestResult } from './controller.ts';

/** The test results and complaints of each node in a group. */
export interface Scores {
  record(node: string, result: TestResult): void;
  /** Records that a download through the node went wrong. True: the node is avoided from now on. */
  complain(node: string): boolean;
  isAlive(node: string): boolean;
  /** After `MAX_COMPLAINTS` within `COMPLAINT_LIFE_MS`, for `AVOIDANCE_MS`. */
  isAvoided(node: string): boolean;
  /** The delay of the last test, in ms; Infinity: not alive, or never tested. */
  delayOf(node: string): number;
  /** The node to use: alive before only answering, not avoided before avoided, then `current`
   *  unless another one is faster by more than `TOLERANCE_MS`. `preferred` is used as long as it is
   *  alive. Undefined: no node has answered. */
  best(
    nodes: readonly string[],
    preference: { inOrder: boolean; current: string | undefined; preferred?: string | undefined },
  ): string | undefined;
}

const MAX_COMPLAINTS = 2;
const COMPLAINT_LIFE_MS = 600_000;
const AVOIDANCE_MS = 600_000;
const TOLERANCE_MS = 50;

export function createScores(now: () => number = Date.now): Scores {
  const results = new Map<string, TestResult>();
  const complaints = new Map<string, number[]>();
  const avoidedUntil = new Map<string, number>();

  const isAlive = (node: string) => results.get(node)?.outcome === 'alive';
  const isAvoided = (node: string) => (avoidedUntil.get(node) ?? 0) > now();
  const delayOf = (node: string) => {
    const result = results.get(node);
    return result?.outcome === 'alive' ? result.delayMs : Infinity;
  };

  return {
    record: (node, result) => void results.set(node, result),

    complain(node) {
      const recent = [...(complaints.get(node) ?? []).filter((at) => at > now() - COMPLAINT_LIFE_MS), now()];
      complaints.set(node, recent);
      if (recent.length < MAX_COMPLAINTS) return false;
      complaints.delete(node);
      avoidedUntil.set(node, now() + AVOIDANCE_MS);
      return true;
    },

    isAlive,
    isAvoided,
    delayOf,

    best(nodes, { inOrder, current, preferred }) {
      if (preferred !== undefined && nodes.includes(preferred) && isAlive(preferred)) return preferred;
      const classOf = (node: string) => {
        const { outcome } = results.get(node) ?? { outcome: 'dead' };
        if (outcome === 'dead') return Infinity;
        return (outcome === 'alive' ? 0 : 2) + (isAvoided(node) ? 1 : 0);
      };
      let found: string | undefined;
      for (const node of nodes) {
        const better = found === undefined ? Infinity : classOf(found);
        if (classOf(node) < better || (!inOrder && classOf(node) === better && delayOf(node) < delayOf(found ?? ''))) found = node;
      }
      const keep = current !== undefined && found !== undefined && nodes.includes(current) && classOf(current) === classOf(found);
      return !inOrder && keep && delayOf(current) <= delayOf(found ?? '') + TOLERANCE_MS ? current : found;
    },
  };
}
