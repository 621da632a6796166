import type { IncomingMessage, ServerResponse } from 'node:http';
import { OciError } from '../oci/error.ts';
import { NO_CREDENTIALS } from './basic-auth.ts';
import { schemeOf } from './forwarded.ts';
import { isHost } from './parse-request.ts';
import { API_VERSION } from './send-error.ts';

// How Docker logs in: docs/decisions/docker-logs-in-by-token.md.

/** Where Docker asks for a token. The name of a repository cannot begin with an underscore, and a
 *  proxy that forwards `/v2/` forwards this as well. */
export const TOKEN_PATH = '/v2/_token';
/** Docker's engine, and its command line where that asks a registry itself (`docker manifest`). */
const DOCKER = /^docker(?:-client)?\//i;
/** In seconds. The token is checked with every request, so its life does not matter here; Docker
 *  asks for another after this time. */
const TOKEN_LIFE = 3600;

/** The challenge for Docker, in the answer to a request for `/v2/`.
 *  @returns undefined: the client is another, or it is not known by which URL Docker reaches this
 *  server */
export function tokenChallenge(request: IncomingMessage): string | undefined {
  const { 'user-agent': agent = '', host } = request.headers;
  const scheme = schemeOf(request);
  if (!DOCKER.test(agent) || scheme === undefined || host === undefined || !isHost(host)) return undefined;
  return `Bearer realm="${scheme}://${host}${TOKEN_PATH}",service="${host}"`;
}

/** Makes the token of a request the Basic credentials that it consists of. */
export function readToken({ headers }: Pick<IncomingMessage, 'headers'>): void {
  const { authorization } = headers;
  if (authorization !== undefined) headers.authorization = authorization.replace(/^bearer /i, 'Basic ');
}

/** Answers a request for a token in the form of distribution's token authentication. The token
 *  consists of the credentials of the request.
 *  @throws OciError UNSUPPORTED: the request is not a GET, and Docker then sends one; what
 *  `authenticate` throws */
export async function answerToken(
  request: IncomingMessage,
  response: ServerResponse,
  authenticate: (request: IncomingMessage) => Promise<unknown>,
): Promise<void> {
  const { method = '', headers } = request;
  if (method !== 'GET' && method !== 'HEAD') {
    response.setHeader('Allow', 'GET, HEAD');
    throw new OciError('UNSUPPORTED', `${method} is not supported here: ask for a token by GET, with Basic credentials`);
  }
  await authenticate(request);
  const token = (headers.authorization ?? NO_CREDENTIALS).replace(/^basic /i, '');
  const body = Buffer.from(JSON.stringify({ token, access_token: token, expires_in: TOKEN_LIFE }));
  const length = String(body.length);
  response.writeHead(200, [...API_VERSION, 'Content-Type', 'application/json', 'Content-Length', length, 'Cache-Control', 'no-store']);
  response.end(method === 'HEAD' ? undefined : body);
}
