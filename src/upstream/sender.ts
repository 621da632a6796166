import { isInternal, resolvesInside } from '../http/addresses.ts';
import { followRedirects, RedirectError, type RedirectProblem, type Route } from '../http/redirects.ts';
import { describeConnectionError, type Transport, type TransportResponse } from '../http/transport.ts';
import { createBody, readAll } from '../io/body.ts';
import { OciError } from '../oci/error.ts';
import type { TokenAnswer } from './authorizer.ts';
import { discard } from './call.ts';
import { parseRetryAfter } from './retry-after.ts';

/** The transports to an endpoint and to the hosts that it redirects to. */
export interface Routes {
  /** For the endpoint's own host, and for all others if the endpoint itself is on an internal
   *  network. */
  own: Transport;
  /** For other hosts; never connects to internal addresses. */
  outside: Transport;
}

export interface SenderOptions {
  /** The URL of the endpoint's host. */
  base: URL;
  routes: Routes;
  /** Used when a proxy fails. */
  fallback?: Routes | undefined;
}

/** Sends requests to one endpoint, and to the hosts that it redirects to. */
export interface Sender {
  /** Sends one request. @throws OciError UNAVAILABLE (origin upstream or proxy) */
  send(this: void, url: URL, route: Route, request: HttpRequest): Promise<TransportResponse>;
  /** Calls `request` for a URL, and for the URLs that it redirects to.
   *  @throws OciError DENIED (a redirect points to a forbidden address), UNAVAILABLE (too many
   *  redirects, or wrong ones); what `request` throws */
  follow(this: void, first: URL, request: (url: URL, route: Route) => Promise<TransportResponse>): Promise<Followed>;
  /** Gets a token. @throws as `follow` and `send` do */
  askToken(this: void, first: URL, authorizationFor: (url: URL) => string | undefined, signal: AbortSignal): Promise<TokenAnswer>;
}

interface HttpRequest {
  method: 'GET' | 'HEAD';
  headers: Record<string, string>;
  signal: AbortSignal;
}

/** The last response, and where it came from. */
interface Followed {
  response: TransportResponse;
  url: URL;
}

const ADVICE: Record<RedirectProblem, string> = {
  'too-many': "check the upstream's url, or use a mirror",
  'no-url': "check the upstream's url, or use a mirror",
  scheme: 'use a mirror, or a url of the upstream that is served by https alone',
  internal: 'if the registry is yours, set the url of its upstream to an internal address too',
};

export const USER_AGENT = 'kube-registry';
const MAX_TOKEN_SIZE = 1024 * 1024;
/** How long the check whether an endpoint is on an internal network stays valid. */
const PLACE_LIFE_MS = 60_000;

export function createSender({ base, routes, fallback }: SenderOptions): Sender {
  const isInside = createPlace(base, routes.own);
  const mayBeInternal = async (url: URL): Promise<boolean> => url.host === base.host || (await isInside());

  async function follow(first: URL, request: (url: URL, route: Route) => Promise<TransportResponse>): Promise<Followed> {
    try {
      return await followRedirects<TransportResponse>(first, { mayBeInternal, discard, send: request });
    } catch (error) {
      if (!(error instanceof RedirectError)) throw error;
      const code = error.problem === 'scheme' || error.problem === 'internal' ? 'DENIED' : 'UNAVAILABLE';
      throw new OciError(code, `${base.host}: ${error.message}; ${ADVICE[error.problem]}`, { cause: error, origin: 'upstream' });
    }
  }

  return {
    send: (url, route, request) => send({ routes, fallback }, { url, route }, request),
    follow,
    async askToken(first, authorizationFor, signal) {
      const { response, url } = await follow(first, (url, route) => {
        const authorization = authorizationFor(url);
        const headers = { accept: 'application/json', 'user-agent': USER_AGENT, ...(authorization === undefined ? {} : { authorization }) };
        return send({ routes, fallback }, { url, route }, { method: 'GET', headers, signal });
      });
      const body = await readAll(createBody(response.body, signal), MAX_TOKEN_SIZE);
      if (body === undefined) throw new OciError('UNAVAILABLE', `${url.host} sends a token without end`, { origin: 'upstream' });
      return { status: response.statusCode, body: body.toString(), retryAfter: parseRetryAfter(response.headers['retry-after']) };
    },
  };
}

async function send(
  { routes, fallback }: Pick<SenderOptions, 'routes' | 'fallback'>,
  { url, route }: { url: URL; route: Route },
  { method, headers, signal }: HttpRequest,
): Promise<TransportResponse> {
  const parts = { origin: url.origin, path: url.pathname + url.search, method, signal, headers };
  const attempt = async (transport: Transport) => {
    try {
      return await transport.request(parts);
    } catch (error) {
      signal.throwIfAborted();
      throw describeConnectionError(error, transport, url);
    }
  };
  const other = fallback?.[route];
  return attempt(routes[route]).catch((error: OciError) => {
    if (error.origin !== 'proxy' || other === undefined) throw error;
    return attempt(other);
  });
}

/** Checks whether a registry is on an internal network: its redirect targets may then be internal
 *  too. Through a proxy, only the host name itself is judged, since the proxy resolves it. */
function createPlace(base: URL, { proxied }: Transport): () => Promise<boolean> {
  let place: { inside: Promise<boolean>; until: number } | undefined;
  return () => {
    if (place === undefined || place.until < Date.now()) {
      const inside = proxied ? Promise.resolve(isInternal(base.hostname)) : resolvesInside(base.hostname);
      place = { inside, until: Date.now() + PLACE_LIFE_MS };
    }
    return place.inside;
  };
}
