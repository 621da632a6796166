import type { IncomingMessage } from 'node:http';
import { schemeOf } from '../server/forwarded.ts';
import { SESSION_HEADER } from './replicas.ts';
import type { Session } from './sessions.ts';

const NAME = 'kube-registry-session';

/** Cookies are shared between ports, so port-forwards to two registries at localhost would
 *  overwrite each other's cookies. */
function cookieName({ headers }: Pick<IncomingMessage, 'headers'>): string {
  const port = /:(\d{1,5})$/.exec(headers.host ?? '')?.[1];
  return port === undefined ? NAME : `${NAME}-${port}`;
}

/** The token of a request's session: in its cookie, or in the header that other replicas send. */
export function readToken(request: Pick<IncomingMessage, 'headers'>): string | undefined {
  const forwarded = request.headers[SESSION_HEADER];
  if (typeof forwarded === 'string') return forwarded;
  const name = cookieName(request);
  for (const part of (request.headers.cookie ?? '').split(';')) {
    const [key, value] = part.trim().split('=', 2);
    if (key === name && value !== undefined) return value;
  }
  return undefined;
}

/** The value of Set-Cookie. Scripts cannot read the cookie, and browsers do not send it with
 *  requests from other sites. */
export function sessionCookie(
  request: Pick<IncomingMessage, 'headers' | 'socket'>,
  started: { token: string; session: Session } | undefined,
): string {
  const seconds = started === undefined ? 0 : Math.max(0, Math.floor((started.session.expiresAt - Date.now()) / 1000));
  const isSecure = schemeOf(request) === 'https';
  const flags = `Path=/; Max-Age=${seconds}; HttpOnly; SameSite=Strict${isSecure ? '; Secure' : ''}`;
  return `${cookieName(request)}=${started?.token ?? ''}; ${flags}`;
}
