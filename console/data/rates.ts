import type { History } from './model.ts';

/** The shortest time over which a rate is meaningful: bytes are counted only once a second. */
const ENOUGH_SECONDS = 4;

/** The bytes per second of each point. The last point has begun only recently, so its bytes are
 *  divided by the time since then; null: that time is too short.
 *  @param now ms since the epoch */
export function ratesOf(
  { since, stepSeconds, sentBytes, upstreamBytes }: Pick<History, 'since' | 'stepSeconds' | 'sentBytes' | 'upstreamBytes'>,
  now: number,
): Record<'sent' | 'fetched', (number | null)[]> {
  const last = upstreamBytes.length - 1;
  const begun = Date.parse(since) / 1000 + last * stepSeconds;
  const seconds = Math.min(stepSeconds, now / 1000 - begun);
  const rateAt = (value: number, index: number): number | null => {
    if (index < last) return value / stepSeconds;
    return seconds < ENOUGH_SECONDS ? null : value / seconds;
  };
  return { sent: sentBytes.map(rateAt), fetched: upstreamBytes.map(rateAt) };
}
