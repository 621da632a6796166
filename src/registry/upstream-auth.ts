import { OciError } from '../oci/error.ts';

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
export type AskToken = (url: URL, authorization: string | undefined, signal: AbortSignal) => Promise<{ status: number; body: string }>;

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
  /** Answers a 401: the Authorization to try again with; undefined: there is none to be had.
   *  @throws OciError UNAVAILABLE (the realm does not answer), DENIED (the realm is where no secret may go) */
  answer(repository: string, challenges: readonly string[], signal: AbortSignal): Promise<string | undefined>;
}

const CHALLENGE = /([A-Za-z][A-Za-z0-9-]*)\s+((?:[A-Za-z_-]+\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^\s,"]+)\s*,?\s*)*)/g;
const PARAMETER = /([A-Za-z_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))/g;
/** Docker's default for tokens that do not say how long they live (distribution, "Token Authentication"). */
const DEFAULT_LIFE = 60;
/** Tokens are renewed this long before they end, in ms. */
const MARGIN = 10_000;

/** Reads WWW-Authenticate headers (RFC 9110 §11.6.1). */
export function parseChallenges(headers: readonly string[]): Challenge[] {
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

/** Tokens and passwords for one upstream, each sent to whom it is meant for only (DESIGN promise 12). */
export function createAuthorizer(options: AuthOptions): Authorizer {
  const own = new URL(options.url);
  const tokens = new Map<string, { authorization: string; until: number }>();
  const fetching = new Map<string, Promise<string | undefined>>();
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
    const { status, body } = await options.ask(url, maySee(url) ? await basic(repository) : undefined, signal);
    if (status === 401 || status === 403) return undefined;
    if (status === 429) throw new OciError('TOOMANYREQUESTS', `${url.host} gives no more tokens for now`, { origin: 'upstream' });
    const { token, life } = parseToken(status === 200 ? body : '');
    if (token === undefined) throw new OciError('UNAVAILABLE', `${url.host} answered ${status} instead of a token`, { origin: 'upstream' });
    const authorization = `Bearer ${token}`;
    tokens.set(repository, { authorization, until: Date.now() + life * 1000 - Math.min(MARGIN, (life * 1000) / 2) });
    return authorization;
  }

  return {
    current(repository) {
      const token = tokens.get(repository);
      if (token === undefined) return undefined;
      if (token.until > Date.now()) return token.authorization;
      tokens.delete(repository);
      return undefined;
    },

    async answer(repository, headers, signal) {
      tokens.delete(repository);
      const challenges = parseChallenges(headers);
      const challenge = challenges.find(({ scheme }) => scheme === 'bearer');
      if (challenge === undefined) {
        return challenges.some(({ scheme }) => scheme === 'basic') ? basic(repository) : undefined;
      }
      let flight = fetching.get(repository);
      if (flight === undefined) {
        flight = bearer(repository, challenge, signal).finally(() => fetching.delete(repository));
        fetching.set(repository, flight);
      }
      try {
        return await flight;
      } catch (error) {
        // Whoever began it has left, and took it along.
        if (!signal.aborted && !(error instanceof OciError)) return bearer(repository, challenge, signal);
        throw error;
      }
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
