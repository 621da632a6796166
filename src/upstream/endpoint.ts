import { OciError } from '../oci/error.ts';
import type { Body } from '../oci/registry.ts';
import { createBody, readAll } from '../io/body.ts';
import { isInternal, resolvesInside } from '../http/addresses.ts';
import { followRedirects, RedirectError, routeTo, type Route } from '../http/redirects.ts';
import { createAuthorizer, type Credentials, type TokenAnswer } from './authorizer.ts';
import { describeConnectionError, type Transport, type TransportResponse } from '../http/transport.ts';

/** The ways out to an endpoint and to where it redirects. */
export interface Ways {
  /** To the endpoint's own host, and to all others where the endpoint itself is inside. */
  way: Transport;
  /** To other hosts: finds no internal addresses. */
  outside: Transport;
}

export interface EndpointOptions extends Ways {
  url: string;
  /** For when a proxy fails. */
  fallback?: Ways | undefined;
  credentials: readonly Credentials[];
  authHosts: readonly string[];
  /** Sent with every request, but not to where it is redirected. */
  headers?: Readonly<Record<string, string>> | undefined;
  /** Milliseconds without a byte of a body. */
  idleTimeout: number;
}

export interface Ask {
  method: 'GET' | 'HEAD';
  /** After the endpoint's URL: /v2/… */
  path: string;
  /** Whose token goes with it. */
  repository: string;
  headers: Record<string, string>;
}

export interface Reply {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  /** Ends with an error when upstream is silent too long or cuts the line. Must be iterated, returned or discarded. */
  body: Body;
  /** Gives the connection up, or back when little is left. */
  discard(): void;
}

export interface Endpoint {
  readonly host: string;
  /** One request, with its redirects and tokens. `signal` ends it, body included; `deadline` only until the headers.
   *  @throws OciError UNAVAILABLE (origin upstream or proxy), DENIED (a redirect that leads where none may) */
  ask(ask: Ask, limits: { signal: AbortSignal; deadline: AbortSignal }): Promise<Reply>;
}

const MAX_TOKEN_SIZE = 1024 * 1024;
const MAX_DRAIN = 64 * 1024;
/** How long it is believed whether an endpoint is inside, in ms. */
const PLACE_LIFE = 60_000;

/** A registry's URL, and the way there. */
export function createEndpoint(options: EndpointOptions): Endpoint {
  const base = new URL(options.url);
  const authorizer = createAuthorizer({ ...options, ask: askToken });
  let place: { inside: Promise<boolean>; until: number } | undefined;

  /** Whether the endpoint is on an internal network: then so may be what it redirects to. Names that a proxy resolves say nothing. */
  function isInside(): Promise<boolean> {
    if (place === undefined || place.until < Date.now()) {
      const inside = options.way.proxied ? Promise.resolve(isInternal(base.hostname)) : resolvesInside(base.hostname);
      place = { inside, until: Date.now() + PLACE_LIFE };
    }
    return place.inside;
  }

  async function send(
    url: URL,
    kind: Route,
    { signal, ...request }: { method: 'GET' | 'HEAD'; headers: Record<string, string>; signal: AbortSignal },
  ): Promise<TransportResponse> {
    const transport = options[KEYS[kind]];
    const parts = { origin: url.origin, path: url.pathname + url.search, signal, ...request };
    try {
      return await transport.request(parts);
    } catch (error) {
      signal.throwIfAborted();
      const described = describeConnectionError(error, transport, url);
      const direct = options.fallback?.[KEYS[kind]];
      if (described.origin !== 'proxy' || direct === undefined) throw described;
      try {
        return await direct.request(parts);
      } catch (second) {
        signal.throwIfAborted();
        throw describeConnectionError(second, direct, url);
      }
    }
  }

  const mayBeInternal = async (url: URL): Promise<boolean> => url.host === base.host || (await isInside());

  async function routeOf(url: URL): Promise<Route> {
    try {
      return await routeTo(url, mayBeInternal);
    } catch (error) {
      throw describeRedirect(error);
    }
  }

  async function askToken(url: URL, authorization: string | undefined, signal: AbortSignal): Promise<TokenAnswer> {
    const headers = { accept: 'application/json', 'user-agent': USER_AGENT, ...(authorization === undefined ? {} : { authorization }) };
    const response = await send(url, await routeOf(url), { method: 'GET', headers, signal });
    const body = await readAll(createBody(response.body, signal), MAX_TOKEN_SIZE);
    if (body === undefined) throw new OciError('UNAVAILABLE', `${url.host} sends a token without end`, { origin: 'upstream' });
    return { status: response.statusCode, body: body.toString(), retryAfter: parseRetryAfter(response.headers) };
  }

  /** Follows redirects; the Authorization stays with the endpoint's own origin. */
  async function follow(ask: Ask, authorization: string | undefined, signal: AbortSignal): Promise<TransportResponse> {
    try {
      const { response } = await followRedirects<TransportResponse>(new URL(base.href.replace(/\/$/, '') + ask.path), {
        mayBeInternal,
        discard,
        send(url, route) {
          const own = url.origin === base.origin;
          const headers = {
            'user-agent': USER_AGENT,
            'accept-encoding': 'identity',
            ...ask.headers,
            ...(own ? options.headers : {}),
            ...(own && authorization !== undefined ? { authorization } : {}),
          };
          return send(url, route, { method: ask.method, headers, signal });
        },
      });
      return response;
    } catch (error) {
      throw describeRedirect(error);
    }
  }

  function describeRedirect(error: unknown): unknown {
    if (!(error instanceof RedirectError)) return error;
    const code = error.problem === 'scheme' || error.problem === 'internal' ? 'DENIED' : 'UNAVAILABLE';
    return new OciError(code, `${base.host}: ${error.message}`, { cause: error, origin: 'upstream' });
  }

  return {
    host: base.host,

    async ask(ask, { signal, deadline }) {
      const own = new AbortController();
      const end = () => own.abort(signal.reason);
      const late = () => own.abort(new OciError('UNAVAILABLE', `${base.host} does not answer in time`, { origin: 'upstream' }));
      signal.throwIfAborted();
      if (deadline.aborted) late();
      own.signal.throwIfAborted();
      signal.addEventListener('abort', end, { once: true });
      deadline.addEventListener('abort', late, { once: true });
      const done = () => signal.removeEventListener('abort', end);
      try {
        const used = authorizer.current(ask.repository);
        let response = await follow(ask, used, own.signal);
        if (response.statusCode === 401) {
          const challenges = [response.headers['www-authenticate'] ?? []].flat();
          discard(response);
          const authorization = await authorizer.answer(ask.repository, { used, challenges }, own.signal);
          if (authorization === undefined)
            throw new OciError(
              'UNAUTHORIZED',
              `${base.host} wants a login for ${ask.repository}, or has no such repository: check its name, or configure credentials for it`,
              { origin: 'upstream' },
            );
          response = await follow(ask, authorization, own.signal);
        }
        const { statusCode: status, headers } = response;
        return {
          status,
          headers,
          body: watch(response, { own, done, idle: options.idleTimeout, host: base.host }),
          discard: () => (done(), discard(response)),
        };
      } catch (error) {
        done();
        throw error;
      } finally {
        deadline.removeEventListener('abort', late);
      }
    },
  };
}

const USER_AGENT = 'kube-registry';
const KEYS = { own: 'way', outside: 'outside' } as const;

interface Watched {
  own: AbortController;
  done: () => void;
  /** Milliseconds. */
  idle: number;
  host: string;
}

/** The body, cut when it says nothing for too long: only while somebody waits for it, since a slow reader is no silent upstream. */
function watch(response: TransportResponse, { own, done, idle, host }: Watched): Body {
  const silent = () => own.abort(new OciError('UNAVAILABLE', `${host} fell silent in the middle of a body`, { origin: 'upstream' }));
  return createBody(
    {
      async pull() {
        const timer = setTimeout(silent, idle);
        try {
          return await response.body.pull();
        } catch (cause) {
          throw new OciError('UNAVAILABLE', `${host} cut the line`, { cause, origin: 'upstream' });
        } finally {
          clearTimeout(timer);
        }
      },
      async close(aborted) {
        done();
        await response.body.close(aborted);
      },
    },
    own.signal,
  );
}

/** Of a Retry-After header, in seconds; a date is nobody's practice. */
export function parseRetryAfter(headers: Reply['headers']): number | undefined {
  const after = Number.parseInt(String(headers['retry-after'] ?? ''), 10);
  return after >= 0 ? after : undefined;
}

/** Gives a connection back when what is left of the body is small, and cuts it otherwise. */
function discard({ headers, abandon }: TransportResponse): void {
  abandon(Number(headers['content-length'] ?? Infinity) <= MAX_DRAIN ? 'short' : 'long');
}
