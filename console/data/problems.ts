import type { MessageKey, Values } from '../language/language.ts';
import { isSlowAnswer, isSlowDownload, proxyName, SLOW_NODE_MS } from './delays.ts';
import { formatMilliseconds } from './format.ts';
import type { ClashReport, Downloads, Overview, Replicas, RunningDownload, UpstreamReport, Upstreams } from './model.ts';
import { progressOf } from './verdict.ts';

/** A current problem that makes pulls slow or fail. */
export interface Problem {
  /** Identifies the problem regardless of its values. Default: key and values. */
  id?: string;
  tone: 'bad' | 'warning';
  key: MessageKey;
  values: Values;
  /** The registry's message about the cause, in English. */
  detail?: string | undefined;
  /** Current figures, which change all the time. */
  figures?: string | undefined;
  /** The image whose check tells more. */
  check?: string | undefined;
  /** The view with details. */
  view: 'upstreams' | 'proxy' | 'images' | 'downloads' | 'overview';
}

interface Reports {
  overview: Overview | undefined;
  upstreams: Upstreams | undefined;
  clash: ClashReport | undefined;
  replicas: Replicas | undefined;
  downloads: Downloads | undefined;
}

/** Share above which a store counts as full. */
const FULL_SHARE = 0.98;
/** Downloads are not called slow before this age. */
const WARM_UP_MS = 10_000;
/** How many are named. */
const MAX_SLOW_DOWNLOADS = 3;

/** The current problems, the worst first. */
export function findProblems({ overview, upstreams, clash, replicas, downloads }: Reports): Problem[] {
  const problems = [
    ...(upstreams?.upstreams ?? []).flatMap((own) => problemsOfUpstream(own, clash)),
    ...(clash === undefined ? [] : problemsOfClash(clash)),
    ...(replicas?.replicas ?? []).flatMap(({ address, reachable, problem }): Problem[] =>
      reachable ? [] : [{ tone: 'warning', key: 'problem.replica', values: { address }, detail: problem ?? undefined, view: 'overview' }],
    ),
    ...(downloads === undefined ? [] : slowDownloads(downloads)),
    ...(overview === undefined ? [] : problemsOfStore(overview)),
  ];
  return problems.toSorted((a, b) => Number(a.tone === 'warning') - Number(b.tone === 'warning'));
}

function problemsOfUpstream({ name, state, proxy, latency }: UpstreamReport, clash: ClashReport | undefined): Problem[] {
  const values = { upstream: name };
  switch (state) {
    case 'down':
      return [{ tone: 'bad', key: 'problem.down', values, view: 'upstreams' }];
    case 'proxy-down':
      return [{ tone: 'bad', key: 'problem.proxyDown', values: { ...values, proxy: proxyName(proxy, clash) }, view: 'upstreams' }];
    case 'limited':
      return [{ tone: 'bad', key: 'problem.limited', values, view: 'upstreams' }];
    case 'refusing':
      return [{ tone: 'warning', key: 'problem.refusing', values, view: 'upstreams' }];
    default:
      return isSlowAnswer(latency)
        ? [{ tone: 'warning', key: 'problem.slow', values: { ...values, time: formatMilliseconds(latency.p50) }, view: 'upstreams' }]
        : [];
  }
}

function problemsOfClash({ enabled, running, problem, chosen, nodes, subscriptions }: ClashReport): Problem[] {
  if (!enabled) return [];
  const problems: Problem[] = [];
  if (!running) problems.push({ tone: 'bad', key: 'problem.clash', values: {}, detail: problem ?? undefined, view: 'proxy' });
  else if (problem !== null) problems.push({ tone: 'warning', key: 'problem.clashConfig', values: {}, detail: problem, view: 'proxy' });
  if (running && nodes.length > 0 && nodes.every(({ alive }) => alive === false))
    problems.push({ tone: 'bad', key: 'problem.noNode', values: {}, view: 'proxy' });
  const node = nodes.find(({ name }) => name === chosen);
  if (node?.delayMs != null && node.delayMs > SLOW_NODE_MS)
    problems.push({
      tone: 'warning',
      key: 'problem.slowNode',
      values: { node: node.name, delay: formatMilliseconds(node.delayMs) },
      view: 'proxy',
    });
  for (const { name, problem, leftBytes } of subscriptions) {
    if (leftBytes === 0) problems.push({ tone: 'bad', key: 'problem.traffic', values: { subscription: name }, view: 'proxy' });
    if (problem !== null)
      problems.push({ tone: 'warning', key: 'problem.subscription', values: { subscription: name }, detail: problem, view: 'proxy' });
  }
  return problems;
}

function slowDownloads({ at, downloads }: Downloads): Problem[] {
  const age = ({ startedAt }: { startedAt: string }): number => Date.parse(at) - Date.parse(startedAt);
  const slow = downloads.filter((one) => one.source === 'upstream' && isSlowDownload(one) && age(one) > WARM_UP_MS);
  return slow.slice(0, MAX_SLOW_DOWNLOADS).map((one) => {
    const image = imageName(one);
    const link = one.image.tag === null ? undefined : image;
    // The figures change every second: a screen reader would announce a title with them each time.
    return {
      tone: 'warning',
      key: 'problem.slowDownload',
      values: { image },
      figures: progressOf([one]),
      check: link,
      view: 'downloads',
      id: `slow ${one.digest}`,
    };
  });
}

/** As users write it, with the tag if that is known. */
export function imageName({ image: { name, tag } }: RunningDownload): string {
  return tag === null ? name : `${name}:${tag}`;
}

function problemsOfStore({ store, inventory }: Overview): Problem[] {
  const problems: Problem[] = [];
  if (store.limit !== null && store.bytes !== null && store.bytes > store.limit * FULL_SHARE)
    problems.push({ tone: 'warning', key: 'problem.full', values: {}, view: 'images' });
  if (inventory.problem !== null)
    problems.push({ tone: 'warning', key: 'problem.inventory', values: {}, detail: inventory.problem, view: 'images' });
  return problems;
}
