import type { History } from './model.ts';

/** The bytes of a younger point say too little: they are counted only once a second. */
const ENOUGH_SECONDS = 4;

/** Bytes a second of each point. The last point has just begun, so its bytes are those of the time
 *  since then; null: too short a time.
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
