import type { IncomingMessage } from 'node:http';
import { splitTarget } from './parse-request.ts';

/** The request header in which an agent passes on the Authorization that the container runtime sent
 *  to it as a mirror. Authorization itself is for the registry's own users. */
export const LOGIN_HEADER = 'x-kube-registry-login';

/** The challenge in the answer to a request that upstream refuses without credentials: containerd
 *  then sends the pod's credentials to the mirror. */
export const MIRROR_CHALLENGE = 'Basic realm="kube-registry mirror", charset="UTF-8"';

const BASIC = /^basic [A-Za-z0-9+/]{1,12000}={0,2}$/i;

/** The Authorization that a container runtime sends to a mirror (`?ns=`); undefined: this is not
 *  such a request, or its Authorization is not Basic (RFC 7617). */
export function mirrorLogin({ url = '', headers }: Pick<IncomingMessage, 'url' | 'headers'>): string | undefined {
  const { authorization } = headers;
  if (authorization === undefined || !BASIC.test(authorization)) return undefined;
  const { query } = splitTarget(url);
  return query !== undefined && (new URLSearchParams(query).get('ns') ?? '') !== '' ? authorization : undefined;
}

/** Removes the login that an agent has passed on from a request.
 *  @returns undefined: there is none */
export function takeLogin({ headers }: Pick<IncomingMessage, 'headers'>): string | undefined {
  const login = headers[LOGIN_HEADER];
  if (login === undefined) return undefined;
  delete headers[LOGIN_HEADER];
  return typeof login === 'string' && BASIC.test(login) ? login : undefined;
}
