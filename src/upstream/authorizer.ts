import { LRUCache } from 'lru-cache';
import { OciError } from '../oci/error.ts';
import { singleFlight } from '../async/single-flight.ts';

/** Who to be for repositories that start with `repositories`. The getters are asked each time: files may rotate. */
export interface Credentials {
  repositories: string;
  username(): Promise<string>;
  password(): Promise<string>;
}
export interface Challenge {
  scheme: string;
  parameters: Record<string, string>;
}

/** Asks a token endpoint. `authorization` goes with it when it is given.
 *  @throws OciError as a connection fails */
export type AskToken = (url: URL, authorization: string | undefined, signal: AbortSignal) => Promise<TokenAnswer>;
export interface TokenAnswer {
  status: number;
  body: string;
  /** Seconds. */
  retryAfter: number | undefined;
}

export interface AuthOptions {
  /** The upstream's own URL. */
  url: string;
  credentials: readonly Credentials[];
  /** Hosts of realms that may see the credentials, beside the upstream's own. */
  authHosts: readonly string[];
  ask: AskToken;
}

export interface Authorizer {
  /** The Authorization for a request that reads `repository`, as far as it is known already. */
  current(repository: string): string | undefined;
  /** Answers the 401 that a request with `used` has got: the Authorization to try again with; undefined: there is none to be had.
   *  @throws OciError UNAVAILABLE (the realm does not answer), DENIED (the realm is where no secret may go) */
  answer(
    repository: string,
    refused: { used: string | undefined; challenges: readonly string[] },
    signal: AbortSignal,
  ): Promise<string | undefined>;
}

const CHALLENGE = /([A-Za-z][A-Za-z0-9-]*)\s+((?:[A-Za-z_-]+\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^\s,"]+)\s*,?\s*)*)/g;
const PARAMETER = /([A-Za-z_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))/g;
/** Docker's default for tokens that do not say how long they live (distribution, "Token Authentication"). */
const DEFAULT_LIFE = 60;
/** Tokens are renewed this long before they end, in ms. */
const MARGIN = 10_000;
/** How long a password goes with requests unasked, in ms; a file that has changed is read again then, or at the next 401. */
const BASIC_LIFE = 60_000;
/** Repositories whose tokens are kept: clients may name as many as they like, and some upstreams have a token for each. */
const IN_MEMORY = 2000;
const TOKEN_LIMIT = 20_000;

/** Reads WWW-Authenticate headers (RFC 9110 §11.6.1). */
function parseChallenges(headers: readonly string[]): Challenge[] {
  return headers.flatMap((header) =>
    [...header.slice(0, 8192).matchAll(CHALLENGE)].map(([, scheme = '', rest = '']) => ({
      scheme: scheme.toLowerCase(),
      parameters: Object.fromEntries(
        [...rest.matchAll(PARAMETER)].map(([, name = '', quoted, bare]) => [
          name.toLowerCase(),
          (quoted ?? bare ?? '').replace(/\\(.)/g, '$1'),
        ]),
      ),
    })),
  );
}

/** Tokens and passwords for one upstream, each sent to whom it is meant for only (promise 12). */
export function createAuthorizer(options: AuthOptions): Authorizer {
  const own = new URL(options.url);
  const known = new LRUCache<string, { authorization: string; until: number }>({ maxSize: IN_MEMORY, sizeCalculation: () => 1 });
  const share = singleFlight<string | undefined>({ timeoutMs: TOKEN_LIMIT });
  const longestFirst = [...options.credentials].sort((a, b) => b.repositories.length - a.repositories.length);

  async function basic(repository: string): Promise<string | undefined> {
    const credentials = longestFirst.find((candidate) => repository.startsWith(candidate.repositories));
    if (credentials === undefined) return undefined;
    const pair = `${await credentials.username()}:${await credentials.password()}`;
    return `Basic ${Buffer.from(pair).toString('base64')}`;
  }

  function maySee(realm: URL): boolean {
    if (realm.protocol !== 'https:' && own.protocol === 'https:') return false;
    return realm.host === own.host || realm.hostname === own.hostname || options.authHosts.includes(realm.host);
  }

  async function bearer(repository: string, { parameters }: Challenge, signal: AbortSignal): Promise<string | undefined> {
    const { realm = '', service } = parameters;
    if (!URL.canParse(realm) || !/^https?:/.test(realm))
      throw new OciError('UNAVAILABLE', `${own.host} names no realm to get a token from`, { origin: 'upstream' });
    const url = new URL(realm);
    if (service !== undefined) url.searchParams.set('service', service);
    url.searchParams.set('scope', `repository:${repository}:pull`);
    const { status, body, retryAfter } = await options.ask(url, maySee(url) ? await basic(repository) : undefined, signal);
    if (status === 401 || status === 403) return undefined;
    if (status === 429) {
      const after = retryAfter === undefined ? {} : { retryAfter };
      throw new OciError('TOOMANYREQUESTS', `${url.host} gives no more tokens for now`, { origin: 'upstream', ...after });
    }
    const { token, life } = parseToken(status === 200 ? body : '');
    if (token === undefined) throw new OciError('UNAVAILABLE', `${url.host} answered ${status} instead of a token`, { origin: 'upstream' });
    const authorization = `Bearer ${token}`;
    known.set(repository, { authorization, until: Date.now() + life * 1000 - Math.min(MARGIN, (life * 1000) / 2) });
    return authorization;
  }

  function current(repository: string): string | undefined {
    const found = known.get(repository);
    if (found === undefined) return undefined;
    if (found.until > Date.now()) return found.authorization;
    known.delete(repository);
    return undefined;
  }

  return {
    current,

    async answer(repository, { used, challenges: headers }, signal) {
      const meanwhile = current(repository);
      if (meanwhile !== undefined && meanwhile !== used) return meanwhile; // another request has asked already
      known.delete(repository);
      const challenges = parseChallenges(headers);
      const challenge = challenges.find(({ scheme }) => scheme === 'bearer');
      if (challenge !== undefined) return share(repository, signal, (signal) => bearer(repository, challenge, signal));
      if (!challenges.some(({ scheme }) => scheme === 'basic')) return undefined;
      const authorization = await basic(repository);
      if (authorization !== undefined) known.set(repository, { authorization, until: Date.now() + BASIC_LIFE });
      return authorization;
    },
  };
}

function parseToken(body: string): { token?: string; life: number } {
  try {
    const { token, access_token: accessToken, expires_in: expiresIn } = JSON.parse(body) as Record<string, unknown>;
    const found = token ?? accessToken;
    const life = typeof expiresIn === 'number' && expiresIn > 0 ? expiresIn : DEFAULT_LIFE;
    return typeof found === 'string' && /^[\x21-\x7e]+$/.test(found) ? { token: found, life } : { life };
  } catch {
    return { life: DEFAULT_LIFE }; // no JSON: no token, which the caller tells
  }
}
