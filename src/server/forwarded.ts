import type { IncomingMessage } from 'node:http';

/** Headers by which proxies announce themselves. */
const PROXY_HEADERS = ['via', 'forwarded', 'x-forwarded-for', 'x-forwarded-host'];

/** The scheme of the URL that the client requested: a proxy in front of this server, such as an
 *  Ingress, may end TLS.
 *  @returns undefined: there is a proxy, and it does not report the scheme */
export function schemeOf({ socket, headers }: Pick<IncomingMessage, 'headers' | 'socket'>): 'http' | 'https' | undefined {
  if ('encrypted' in socket) return 'https';
  const forwarded = headers['x-forwarded-proto'];
  if (typeof forwarded === 'string') {
    const [first = ''] = forwarded.toLowerCase().split(',', 1);
    const scheme = first.trim();
    return scheme === 'http' || scheme === 'https' ? scheme : undefined;
  }
  return PROXY_HEADERS.some((name) => headers[name] !== undefined) ? undefined : 'http';
}
