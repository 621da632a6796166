/** Reads a Retry-After header: seconds, or a date (RFC 9110 §10.2.3).
 *  @returns seconds from now, 0 for a date that has passed; undefined: the header is neither */
export function parseRetryAfter(header: string | string[] | undefined): number | undefined {
  const text = String(header ?? '').trim();
  if (/^\d+(?:\.\d+)?$/.test(text)) return Math.min(Number(text), MAX_SECONDS);
  const date = /^[A-Za-z]{3,9},? /.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(date) ? undefined : Math.min(Math.max(0, Math.ceil((date - Date.now()) / 1000)), MAX_SECONDS);
}

/** A year: anything longer is a mistake. */
const MAX_SECONDS = 31_536_000;
