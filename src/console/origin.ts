import type { IncomingMessage } from 'node:http';
import { ACTION_HEADER } from './api/operations.ts';

/** Whether a request that changes something comes from the console's own page, or not from a
 *  browser. A page of another origin cannot send ACTION_HEADER, because that would require a
 *  preflight request, which is not answered. Browsers also state the origin of a request, in
 *  Sec-Fetch-Site or, older ones, in Origin. */
export function isOwnPage({ headers }: Pick<IncomingMessage, 'headers'>): boolean {
  if (headers[ACTION_HEADER] === undefined) return false;
  const site = headers['sec-fetch-site'];
  if (site !== undefined) return site === 'same-origin';
  const { origin, host } = headers;
  return origin === undefined || hostOf(origin) === host;
}

function hostOf(origin: string): string | undefined {
  return URL.canParse(origin) ? new URL(origin).host : undefined;
}
