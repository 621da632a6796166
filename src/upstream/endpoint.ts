import { LRUCache } from 'lru-cache';
import { resolvesInside, isInternal } from '../http/addresses.ts';
import { followRedirects, RedirectError, type Route } from '../http/redirects.ts';
import { describeConnectionError, type Transport, type TransportResponse } from '../http/transport.ts';
import { createBody, readAll } from '../io/body.ts';
import { OciError } from '../oci/error.ts';
import type { Body } from '../oci/registry.ts';
import { discard, startCall, withIdleTimeout, type Limits } from './call.ts';
import { createAuthorizer, type Access, type Authorizer, type Credentials, type TokenAnswer } from './authorizer.ts';
import { parseRegistryUrl, type RegistryPath } from './links.ts';
import { parseRetryAfter } from './retry-after.ts';

/** The transports to an endpoint and to the hosts that it redirects to. */
export interface Routes {
  /** For the endpoint's own host, and for all others if the endpoint itself is on an internal
   *  network. */
  own: Transport;
  /** For other hosts; never connects to internal addresses. */
  outside: Transport;
}

export interface EndpointOptions {
  /** With the base path before /v2/ and the project after it, if there are any. */
  url: string;
  routes: Routes;
  /** Used when a proxy fails. */
  fallback?: Routes | undefined;
  credentials: readonly Credentials[];
  /** Hosts of token services that may see the credentials, besides the endpoint's own. */
  authHosts: readonly string[];
  /** Sent with every request to the endpoint itself, but not to redirect targets. */
  headers?: Readonly<Record<string, string>> | undefined;
  /** The registry to ask a mirror of several registries for; sent as `?ns=`, as containerd does. */
  ns?: string | undefined;
  /** How long a body may stay silent, in ms. */
  idleTimeoutMs: number;
}

export interface Ask {
  method: 'GET' | 'HEAD';
  repository: string;
  /** The path after the repository's name: `manifests/1.27`, `tags/list?last=b`. */
  resource: string;
  /** The next page of a list, instead of `resource`. */
  page?: URL | undefined;
  action: Access['action'];
  headers: Record<string, string>;
}

export interface Reply {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  /** Where it came from, after redirects. */
  url: URL;
  /** The registry asked for a login, and no credentials are configured. */
  loginRefused: boolean;
  /** Fails when upstream is silent for too long or cuts the connection. Must be iterated, returned or discarded. */
  body: Body;
  /** Frees the connection, for reuse if little is left of the body. */
  discard(): void;
}

export interface Endpoint {
  readonly host: string;
  readonly path: RegistryPath;
  /** Whether there are credentials for a repository. */
  covers(repository: string): boolean;
  /** Tells the user what to do about a refused login. */
  explainRefusal(repository: string): string;
  /** Sends one request, follows its redirects, and logs in if asked to.
   *  @throws OciError UNAVAILABLE (origin upstream or proxy), DENIED (a redirect or a token service
   *  points to a forbidden address), TOOMANYREQUESTS (from a token service) */
  ask(ask: Ask, limits: Limits): Promise<Reply>;
}

const USER_AGENT = 'kube-registry';
const MAX_TOKEN_SIZE = 1024 * 1024;
/** How often a request may be answered by a challenge, redirects included. */
const MAX_CHALLENGES = 3;
/** How long the check whether an endpoint is on an internal network stays valid. */
const PLACE_LIFE_MS = 60_000;
/** How long the finding that /v2/ asks for no login stays valid. */
const NO_CHALLENGE_LIFE_MS = 600_000;
/** The most other registries that this one redirects to and that want tokens of their own. */
const MAX_OTHER_ORIGINS = 64;

/** A registry at a URL. */
export function createEndpoint(options: EndpointOptions): Endpoint {
  const path = parseRegistryUrl(options.url);
  const base = new URL(path.origin);
  const own = createAuthorizer({ ...options, origin: base, ask: askToken });
  const others = new LRUCache<string, Authorizer>({ max: MAX_OTHER_ORIGINS });
  const isInside = createPlace(base, options.routes.own);
  let noChallengeUntil = 0;

  /** Whether a URL is on the endpoint itself; the same host by https is the same registry. */
  const isOwn = (url: URL) =>
    url.origin === base.origin || (url.hostname === base.hostname && base.protocol === 'http:' && url.protocol === 'https:');
  const mayBeInternal = async (url: URL): Promise<boolean> => url.host === base.host || (await isInside());

  async function send(
    url: URL,
    route: Route,
    request: Pick<Ask, 'method' | 'headers'> & { signal: AbortSignal },
  ): Promise<TransportResponse> {
    const { method, headers, signal } = request;
    const parts = { origin: url.origin, path: url.pathname + url.search, method, signal, headers };
    const attempt = async (transport: Transport) => {
      try {
        return await transport.request(parts);
      } catch (error) {
        signal.throwIfAborted();
        throw describeConnectionError(error, transport, url);
      }
    };
    const fallback = options.fallback?.[route];
    return attempt(options.routes[route]).catch((error: OciError) => {
      if (error.origin !== 'proxy' || fallback === undefined) throw error;
      return attempt(fallback);
    });
  }

  async function follow(first: URL, request: (url: URL, route: Route) => Promise<TransportResponse>) {
    try {
      return await followRedirects<TransportResponse>(first, { mayBeInternal, discard, send: request });
    } catch (error) {
      if (!(error instanceof RedirectError)) throw error;
      const code = error.problem === 'scheme' || error.problem === 'internal' ? 'DENIED' : 'UNAVAILABLE';
      throw new OciError(code, `${base.host}: ${error.message}`, { cause: error, origin: 'upstream' });
    }
  }

  async function askToken(first: URL, authorizationFor: (url: URL) => string | undefined, signal: AbortSignal): Promise<TokenAnswer> {
    const { response, url } = await follow(first, (url, route) => {
      const authorization = authorizationFor(url);
      const headers = { accept: 'application/json', 'user-agent': USER_AGENT, ...(authorization === undefined ? {} : { authorization }) };
      return send(url, route, { method: 'GET', headers, signal });
    });
    const body = await readAll(createBody(response.body, signal), MAX_TOKEN_SIZE);
    if (body === undefined) throw new OciError('UNAVAILABLE', `${url.host} sends a token without end`, { origin: 'upstream' });
    return { status: response.statusCode, body: body.toString(), retryAfter: parseRetryAfter(response.headers['retry-after']) };
  }

  /** The first URL of a request. */
  function urlOf({ repository, resource, page }: Ask): URL {
    const url = page ?? new URL(`${path.origin}${path.base}/v2/${path.project}${repository}/${resource}`);
    if (options.ns !== undefined && isOwn(url)) url.searchParams.set('ns', options.ns);
    return url;
  }

  /** Sends a request along its redirects; each origin gets the token that it has requested. */
  async function askOnce(
    ask: Ask,
    signal: AbortSignal,
  ): Promise<{ response: TransportResponse; url: URL; loginRefused: boolean; anonymous: boolean }> {
    let challenges = 0;
    let loginRefused = false;
    let anonymous = true;
    const { response, url } = await follow(urlOf(ask), async (url, route) => {
      const mine = isOwn(url);
      const access = { ...ask, scopeName: repositoryIn(url) ?? path.project + ask.repository };
      let authorization = mine ? await own.prepare(access, signal) : others.get(url.origin)?.current(access);
      let asked: string | undefined;
      for (;;) {
        const headers = {
          'user-agent': USER_AGENT,
          'accept-encoding': 'identity',
          ...ask.headers,
          ...(mine ? options.headers : {}),
          ...(authorization === undefined ? {} : { authorization }),
        };
        if (mine && authorization !== undefined) anonymous = false;
        const response = await send(url, route, { method: ask.method, headers, signal });
        const offered = [response.headers['www-authenticate'] ?? []].flat();
        const challenge = offered.join().replace(/,?\s*error(?:_description)?="[^"]*"/g, '');
        // The same challenge again: another token would not help.
        if (response.statusCode !== 401 || challenge === '' || challenge === asked || challenges >= MAX_CHALLENGES) return response;
        challenges++;
        asked = challenge;
        const next = await authorizerOf(url, mine).answer(access, { used: authorization, challenges: offered }, signal);
        loginRefused = next === undefined || next === authorization;
        if (loginRefused) return response;
        discard(response);
        authorization = next;
      }
    });
    return { response, url, loginRefused, anonymous };
  }

  function authorizerOf(url: URL, mine: boolean): Authorizer {
    if (mine) return own;
    const known = others.get(url.origin) ?? createAuthorizer({ origin: url, credentials: [], authHosts: [], ask: askToken });
    others.set(url.origin, known);
    return known;
  }

  /** Registries may answer 404 or 403 for content that anonymous users may not see, and ask for a
   *  login only at /v2/ (GitHub's packages, Artifactory).
   *  @returns whether there is a login now */
  async function logInAtRoot(ask: Ask, signal: AbortSignal): Promise<boolean> {
    if (noChallengeUntil > Date.now()) return false;
    const { response } = await follow(new URL(`${path.origin}${path.base}/v2/`), (url, route) =>
      send(url, route, { method: 'GET', headers: { 'user-agent': USER_AGENT, ...(isOwn(url) ? options.headers : {}) }, signal }),
    );
    discard(response);
    const challenges = [response.headers['www-authenticate'] ?? []].flat();
    if (response.statusCode !== 401 || challenges.length === 0) {
      noChallengeUntil = Date.now() + NO_CHALLENGE_LIFE_MS;
      return false;
    }
    const access = { ...ask, scopeName: path.project + ask.repository };
    return (await own.answer(access, { used: undefined, challenges, general: true }, signal)) !== undefined;
  }

  async function askWithLogin(ask: Ask, signal: AbortSignal) {
    const first = await askOnce(ask, signal);
    const hidden = [401, 403, 404].includes(first.response.statusCode) && first.anonymous && own.covers(ask.repository);
    if (!hidden || first.loginRefused || !(await logInAtRoot(ask, signal))) return first;
    discard(first.response);
    return askOnce(ask, signal);
  }

  return {
    host: base.host,
    path,
    covers: (repository) => own.covers(repository),
    explainRefusal: (repository) => own.explain(repository),

    async ask(ask, limits) {
      const call = startCall(limits, base.host);
      try {
        const { response, url, loginRefused } = await askWithLogin(ask, call.signal);
        return {
          status: response.statusCode,
          headers: response.headers,
          url,
          loginRefused,
          body: withIdleTimeout(response, call, { idleTimeoutMs: options.idleTimeoutMs, host: base.host }),
          discard() {
            call.end();
            discard(response);
          },
        };
      } catch (error) {
        call.end();
        throw error;
      } finally {
        call.headersCame();
      }
    },
  };
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

/** `acme/web` of /v2/acme/web/manifests/1. */
function repositoryIn({ pathname }: URL): string | undefined {
  return /\/v2\/(.+)\/(?:manifests|blobs|tags|referrers)\//.exec(pathname)?.[1];
}
