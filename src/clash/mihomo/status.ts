import type { Controller } from './controller.ts';
import { nameOf } from '../subscription/document.ts';
import { textOf, textsOf, type Fields } from '../../io/untrusted.ts';
import { subscriptionOf } from '../config/parts.ts';
import type { Rendered } from '../config/render.ts';

export interface NodeStatus {
  name: string;
  type: string;
  /** The subscription of the node; undefined: it has none. */
  subscription: string | undefined;
  /** Undefined: not tested yet. */
  alive: boolean | undefined;
  /** How long the last test took, in ms. */
  delay: number | undefined;
}

/** The state that mihomo reports. */
export interface MihomoStatus {
  /** The node in use. */
  chosen: string | undefined;
  nodes: NodeStatus[];
  traffic: { uploaded: number; downloaded: number; connections: number };
}

export interface StatusContext {
  /** The group for traffic that no rule matches. */
  main: string;
  rendered: Rendered | undefined;
  /** Names. */
  subscriptions: readonly string[];
}

/** Groups have groups for members; this deep at most. */
const MAX_DEPTH = 10;

/** @throws Error: mihomo does not answer */
export async function readStatus(controller: Controller, { main, rendered, subscriptions }: StatusContext): Promise<MihomoStatus> {
  const [proxies, traffic] = await Promise.all([controller.proxies(), controller.traffic()]);
  const bySubscription = new Map(rendered?.nodes.map(({ value, subscription }) => [nameOf(value), subscription]));
  const leaves = new Map<string, Fields>();
  const visit = (name: string, depth: number): void => {
    const proxy = proxies[name];
    if (proxy === undefined || depth > MAX_DEPTH) return;
    if (Array.isArray(proxy['all'])) for (const member of textsOf(proxy['all'])) visit(member, depth + 1);
    else if (proxy['type'] !== 'Reject') leaves.set(name, proxy);
  };
  visit(main, 0);
  const test = textOf(proxies[main]?.['testUrl']) ?? '';
  const nodes = [...leaves].map(([name, proxy]): NodeStatus => {
    const own = ((proxy['extra'] ?? {}) as Record<string, Fields>)[test] ?? proxy;
    const history = (Array.isArray(own['history']) ? own['history'] : []) as { delay: number }[];
    const delay = history.at(-1)?.delay;
    const alive = delay === undefined ? undefined : own['alive'] === true && delay > 0;
    return {
      name,
      type: textOf(proxy['type']) ?? '',
      subscription: subscriptions.find((own) => own === subscriptionOf(textOf(proxy['provider-name']) ?? '')) ?? bySubscription.get(name),
      alive,
      delay: alive === true ? delay : undefined,
    };
  });
  return { chosen: chosenOf(proxies, main), nodes, traffic };
}

function chosenOf(proxies: Record<string, Fields>, main: string): string | undefined {
  let name = main;
  for (let depth = 0; depth < MAX_DEPTH; depth++) {
    const now = proxies[name]?.['now'];
    if (typeof now !== 'string' || now === '') break;
    name = now;
  }
  const type = proxies[name]?.['type'];
  return type === undefined || type === 'Reject' ? undefined : name;
}
