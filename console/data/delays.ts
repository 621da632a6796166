import { t, type MessageKey, type Values } from '../language/language.ts';
import { formatBytes, formatMilliseconds, formatRate } from './format.ts';
import type { ClashReport, RunningDownload, UpstreamReport } from './model.ts';

/** One factor that determines how fast an image is pulled. */
export interface Delay {
  key: MessageKey;
  values: Values;
  tone: 'neutral' | 'warning' | 'bad';
}

export interface Situation {
  upstream: UpstreamReport | undefined;
  clash: ClashReport | undefined;
  downloads: readonly RunningDownload[];
}

/** Downloads below this speed count as slow. */
const SLOW_BYTES_PER_SECOND = 1024 * 1024;
const SLOW_ANSWER_MS = 2000;
/** The minimum number of requests for a meaningful latency. */
const ENOUGH_REQUESTS = 3;
export const SLOW_NODE_MS = 1000;

export function isSlowDownload({ bytesPerSecond }: RunningDownload): boolean {
  return bytesPerSecond < SLOW_BYTES_PER_SECOND;
}

export function isSlowAnswer(latency: UpstreamReport['latency']): latency is NonNullable<UpstreamReport['latency']> {
  return latency !== null && latency.requests >= ENOUGH_REQUESTS && latency.p50 > SLOW_ANSWER_MS;
}

/** The proxy node in use; undefined: there is none, or no proxy. */
export function nodeInUse(clash: ClashReport | undefined): ClashReport['nodes'][number] | undefined {
  return clash?.enabled === true && clash.running ? clash.nodes.find(({ name }) => name === clash.chosen) : undefined;
}

/** How users know a proxy: the clash proxy next to the registry by its kind, others by their
 *  URL. */
export function proxyName(proxy: string, clash: ClashReport | undefined): string {
  return clash?.port != null && proxy.endsWith(`//127.0.0.1:${clash.port}`) ? t('proxy.clash') : proxy;
}

/** The factors that currently determine how fast an image is pulled, in the order in which a
 *  request passes them. */
export function findDelays({ upstream, clash, downloads }: Situation): Delay[] {
  const delays: Delay[] = [];
  const [first] = downloads;
  if (first !== undefined) {
    const { receivedBytes, size, bytesPerSecond } = first;
    const values = {
      count: downloads.length,
      received: formatBytes(receivedBytes),
      size: size === null ? '?' : formatBytes(size),
      rate: formatRate(bytesPerSecond),
    };
    delays.push({ key: 'delay.running', values, tone: isSlowDownload(first) ? 'warning' : 'neutral' });
  }
  if (upstream !== undefined) delays.push(...delaysOfUpstream(upstream, clash));
  if (upstream !== undefined && upstream.proxy !== 'direct' && clash?.enabled === true) delays.push(delayOfNode(clash));
  return delays;
}

function delaysOfUpstream({ name, state, latency, proxy }: UpstreamReport, clash: ClashReport | undefined): Delay[] {
  const delays: Delay[] = [];
  const values = { upstream: name, proxy: proxyName(proxy, clash) };
  if (state === 'limited') delays.push({ key: 'problem.limited', values, tone: 'bad' });
  if (state === 'down') delays.push({ key: 'problem.down', values, tone: 'bad' });
  if (state === 'proxy-down') delays.push({ key: 'problem.proxyDown', values, tone: 'bad' });
  if (state === 'refusing') delays.push({ key: 'problem.refusing', values, tone: 'warning' });
  if (latency !== null) {
    const times = { p50: formatMilliseconds(latency.p50), p95: formatMilliseconds(latency.p95) };
    delays.push({ key: 'delay.upstream', values: { ...values, ...times }, tone: isSlowAnswer(latency) ? 'warning' : 'neutral' });
  }
  delays.push({ key: proxy === 'direct' ? 'delay.direct' : 'delay.proxy', values, tone: 'neutral' });
  return delays;
}

function delayOfNode({ running, chosen, nodes }: ClashReport): Delay {
  if (!running || chosen === null) return { key: 'problem.clash', values: {}, tone: 'bad' };
  const node = nodes.find(({ name }) => name === chosen);
  if (node?.delayMs == null) return { key: 'delay.untestedNode', values: { node: chosen }, tone: 'neutral' };
  const values = { node: chosen, delay: formatMilliseconds(node.delayMs) };
  return { key: 'delay.node', values, tone: node.delayMs > SLOW_NODE_MS ? 'warning' : 'neutral' };
}
