import { t } from '../language/language.ts';
import { formatBytes, formatMilliseconds, formatRate, formatRoughly } from './format.ts';
import { isSlowAnswer, isSlowDownload, nodeInUse, SLOW_NODE_MS, type Situation } from './delays.ts';
import type { Check, RunningDownload } from './model.ts';

/** The answer to `Why is an image slow, or refused?` in a word and a sentence. */
export interface Verdict {
  tone: 'good' | 'info' | 'neutral' | 'warning' | 'bad';
  word: string;
  sentence: string;
}

/** @param check - contains the upstream's answer, or says that it has not been asked yet */
export function findVerdict(check: Check, situation: Situation): Verdict {
  const { upstream, served, stored } = check;
  const isAwaited = upstream.answer === 'not-asked';
  if (!isAwaited && !served) return { tone: 'bad', word: t('check.notServed'), sentence: refusalOf(check) };
  if (stored === 'complete') return { tone: 'good', word: t('check.storedHere'), sentence: t('delay.stored') };
  const causes = causesOf(situation);
  if (causes.length > 0) return { tone: 'warning', word: t('check.slow'), sentence: `${causes.join(t('check.and'))}${t('check.end')}` };
  const progress = progressOf(situation.downloads);
  if (progress !== undefined) return { tone: 'info', word: t('check.running'), sentence: `${progress}${t('check.end')}` };
  if (isAwaited) return { tone: 'neutral', word: t('check.awaited'), sentence: '' };
  return { tone: 'good', word: t('check.served'), sentence: upstream.answer === 'found' ? t('check.fine') : check.reason };
}

function refusalOf({ repository, reason }: Check): string {
  return repository === null ? t('check.noUpstream') : reason;
}

/** The causes of slowness, the one that matters most first. */
function causesOf({ upstream, clash, downloads }: Situation): string[] {
  const causes: string[] = [];
  const progress = progressOf(downloads);
  if (progress !== undefined && downloads.some(isSlowDownload)) causes.push(progress);
  if (upstream !== undefined) {
    const { name, latency, state, proxy } = upstream;
    if (state === 'limited') causes.push(t('cause.limited', { upstream: name }));
    if (state === 'down') causes.push(t('cause.down', { upstream: name }));
    if (state === 'proxy-down') causes.push(t('cause.proxyDown', { upstream: name }));
    if (isSlowAnswer(latency)) causes.push(t('cause.upstream', { upstream: name, time: formatMilliseconds(latency.p50) }));
    const node = proxy === 'direct' ? undefined : nodeInUse(clash);
    if (node?.delayMs != null && node.delayMs > SLOW_NODE_MS)
      causes.push(t('cause.node', { node: node.name, delay: formatMilliseconds(node.delayMs) }));
  }
  return causes;
}

/** Of several downloads together. Undefined: none runs. */
export function progressOf(downloads: readonly RunningDownload[]): string | undefined {
  if (downloads.length === 0) return undefined;
  const sum = (valueOf: (own: RunningDownload) => number) => downloads.reduce((total, own) => total + valueOf(own), 0);
  const [received, speed] = [sum((own) => own.receivedBytes), sum((own) => own.bytesPerSecond)];
  const values = { received: formatBytes(received), rate: formatRate(speed) };
  if (downloads.some(({ size }) => size === null)) return t('progress.unknown', values);
  const size = sum((own) => own.size ?? 0);
  if (speed === 0) return t('progress.stalled', { ...values, size: formatBytes(size) });
  return t('progress.left', { ...values, size: formatBytes(size), left: formatRoughly(((size - received) * 1000) / speed) });
}
