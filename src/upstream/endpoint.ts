import { LRUCache } from 'lru-cache';
import type { Route } from '../http/redirects.ts';
import type { TransportResponse } from '../http/transport.ts';
import type { Body } from '../oci/registry.ts';
import { discard, startCall, withIdleTimeout, type Limits } from './call.ts';
import { createAuthorizer, type Access, type Authorizer, type Credentials } from './authorizer.ts';
import { parseRegistryUrl, type RegistryPath } from './links.ts';
import { createSender, USER_AGENT, type Routes, type Sender } from './sender.ts';

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
  /** The URL of the response, after redirects. */
  url: URL;
  /** The registry asked for a login, and no credentials are configured. */
  loginRefused: boolean;
  /** Fails when upstream is silent for too long or cuts the connection. Must be iterated, returned
   *  or discarded. */
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

/** How often a request may be answered by a challenge, redirects included. */
const MAX_CHALLENGES = 3;
/** How long the finding that /v2/ asks for no login stays valid. */
const NO_CHALLENGE_LIFE_MS = 600_000;
/** The most other registries that this one redirects to and that want tokens of their own. */
const MAX_OTHER_ORIGINS = 64;

/** A registry at a URL. */
export function createEndpoint(options: EndpointOptions): Endpoint {
  const registry = openRegistry(options);
  const { path, base, own } = registry;

  async function askWithLogin(ask: Ask, signal: AbortSignal): Promise<Asked> {
    const first = await askOnce(registry, ask, signal);
    const hidden = [401, 403, 404].includes(first.response.statusCode) && first.anonymous && own.covers(ask.repository);
    if (!hidden || first.loginRefused || !(await logInAtRoot(registry, ask, signal))) return first;
    discard(first.response);
    return askOnce(registry, ask, signal);
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

/** The state that the requests to one registry share. */
interface OpenRegistry extends Sender {
  path: RegistryPath;
  /** The URL of the registry's host. */
  base: URL;
  /** Sent with every request to the registry itself. */
  headers: Readonly<Record<string, string>> | undefined;
  ns: string | undefined;
  own: Authorizer;
  /** The authorizers of other registries that this one redirects to, by their origin. */
  others: LRUCache<string, Authorizer>;
  /** Until then, /v2/ is known to ask for no login; in ms since 1970. */
  noChallengeUntil: number;
}

function openRegistry(options: EndpointOptions): OpenRegistry {
  const path = parseRegistryUrl(options.url);
  const base = new URL(path.origin);
  const { headers, ns } = options;
  const sender = createSender({ ...options, base });
  const own = createAuthorizer({ ...options, origin: base, ask: sender.askToken });
  return { ...sender, path, base, headers, ns, own, others: new LRUCache({ max: MAX_OTHER_ORIGINS }), noChallengeUntil: 0 };
}

interface Asked {
  response: TransportResponse;
  url: URL;
  loginRefused: boolean;
  /** Every request to the registry itself was sent without a login. */
  anonymous: boolean;
}

/** Sends a request along its redirects; each origin gets the token that it has requested. */
async function askOnce(registry: OpenRegistry, ask: Ask, signal: AbortSignal): Promise<Asked> {
  const state = { challenges: 0, loginRefused: false, anonymous: true };
  const { response, url } = await registry.follow(urlOf(registry, ask), (url, route) =>
    askAt(registry, { url, route }, { ask, state, signal }),
  );
  return { response, url, loginRefused: state.loginRefused, anonymous: state.anonymous };
}

/** Sends a request to one of its URLs, and answers challenges for a token. */
async function askAt(
  registry: OpenRegistry,
  { url, route }: { url: URL; route: Route },
  { ask, state, signal }: { ask: Ask; state: { challenges: number; loginRefused: boolean; anonymous: boolean }; signal: AbortSignal },
): Promise<TransportResponse> {
  const mine = isOwn(registry, url);
  const access = { ...ask, scopeName: repositoryIn(url) ?? registry.path.project + ask.repository };
  let authorization = mine ? await registry.own.prepare(access, signal) : registry.others.get(url.origin)?.current(access);
  let asked: string | undefined;
  for (;;) {
    const headers = {
      'user-agent': USER_AGENT,
      'accept-encoding': 'identity',
      ...ask.headers,
      ...(mine ? registry.headers : {}),
      ...(authorization === undefined ? {} : { authorization }),
    };
    if (mine && authorization !== undefined) state.anonymous = false;
    const response = await registry.send(url, route, { method: ask.method, headers, signal });
    const challenges = [response.headers['www-authenticate'] ?? []].flat();
    const challenge = challenges.join().replace(/,?\s*error(?:_description)?="[^"]*"/g, '');
    // The same challenge again: another token would not help.
    if (response.statusCode !== 401 || challenge === '' || challenge === asked || state.challenges >= MAX_CHALLENGES) return response;
    state.challenges++;
    asked = challenge;
    const next = await authorizerOf(registry, url).answer(access, { used: authorization, challenges }, signal);
    state.loginRefused = next === undefined || next === authorization;
    if (state.loginRefused) return response;
    discard(response);
    authorization = next;
  }
}

/** Registries may answer 404 or 403 for content that anonymous users may not see, and ask for a
 *  login only at /v2/ (GitHub's packages, Artifactory).
 *  @returns whether there is a login now */
async function logInAtRoot(registry: OpenRegistry, ask: Ask, signal: AbortSignal): Promise<boolean> {
  if (registry.noChallengeUntil > Date.now()) return false;
  const { path, follow, send, own } = registry;
  const { response } = await follow(new URL(`${path.origin}${path.base}/v2/`), (url, route) => {
    const headers = { 'user-agent': USER_AGENT, ...(isOwn(registry, url) ? registry.headers : {}) };
    return send(url, route, { method: 'GET', headers, signal });
  });
  discard(response);
  const challenges = [response.headers['www-authenticate'] ?? []].flat();
  if (response.statusCode !== 401 || challenges.length === 0) {
    registry.noChallengeUntil = Date.now() + NO_CHALLENGE_LIFE_MS;
    return false;
  }
  const access = { ...ask, scopeName: path.project + ask.repository };
  return (await own.answer(access, { used: undefined, challenges, general: true }, signal)) !== undefined;
}

/** The first URL of a request. */
function urlOf(registry: OpenRegistry, { repository, resource, page }: Ask): URL {
  const { path, ns } = registry;
  const url = page ?? new URL(`${path.origin}${path.base}/v2/${path.project}${repository}/${resource}`);
  if (ns !== undefined && isOwn(registry, url)) url.searchParams.set('ns', ns);
  return url;
}

/** Whether a URL is on the registry itself; the same host by https is the same registry. */
function isOwn({ base }: OpenRegistry, url: URL): boolean {
  return url.origin === base.origin || (url.hostname === base.hostname && base.protocol === 'http:' && url.protocol === 'https:');
}

function authorizerOf(registry: OpenRegistry, url: URL): Authorizer {
  const { own, others, askToken } = registry;
  if (isOwn(registry, url)) return own;
  const known = others.get(url.origin) ?? createAuthorizer({ origin: url, credentials: [], authHosts: [], ask: askToken });
  others.set(url.origin, known);
  return known;
}

/** `acme/web` of /v2/acme/web/manifests/1. */
function repositoryIn({ pathname }: URL): string | undefined {
  return /\/v2\/(.+)\/(?:manifests|blobs|tags|referrers)\//.exec(pathname)?.[1];
}
