import { LRUCache } from 'lru-cache';
import { singleFlight, type SingleFlight } from '../async/single-flight.ts';
import { OciError } from '../oci/error.ts';
import { parseChallenges, type Challenge } from './challenge.ts';

/** A login for the repositories that start with `repositories`. The getters are called each time:
 *  files may rotate. */
export interface Credentials {
  repositories: string;
  username(): Promise<string>;
  password(): Promise<string>;
}

/** The access that a request needs. A token for one action may not be valid for the other. */
export interface Access {
  /** As the credentials name it. */
  repository: string;
  /** As the registry names it, with its project. */
  scopeName: string;
  /** `pull`: manifests and blobs. `list`: tags and referrers. */
  action: 'pull' | 'list';
}

/** Asks a token service. `authorizationFor` returns what may be sent to a URL; the service may
 *  redirect.
 *  @throws OciError as a connection fails */
export type AskToken = (url: URL, authorizationFor: (url: URL) => string | undefined, signal: AbortSignal) => Promise<TokenAnswer>;
export interface TokenAnswer {
  status: number;
  body: string;
  /** Seconds. */
  retryAfter: number | undefined;
}

export interface AuthorizerOptions {
  /** The origin of the registry whose challenges are answered. */
  origin: URL;
  credentials: readonly Credentials[];
  /** Hosts of token services that may see the credentials, besides the origin's own.
   *  `*.example.com` is every host below example.com. */
  authHosts: readonly string[];
  ask: AskToken;
}

export interface Authorizer {
  /** The Authorization for a request, if one is known. */
  current(access: Access): string | undefined;
  /** The same, but logs in first if the origin is known to require it and there are credentials for
   *  the repository: some registries hide private repositories instead of asking for a login.
   *  @throws the signal's reason; OciError TOOMANYREQUESTS */
  prepare(access: Access, signal: AbortSignal): Promise<string | undefined>;
  /** Answers a 401.
   *  @returns the Authorization to retry with; undefined: there is none
   *  @throws OciError UNAVAILABLE (the token service does not answer), DENIED (its address is
   *  forbidden), TOOMANYREQUESTS */
  answer(access: Access, refused: Refused, signal: AbortSignal): Promise<string | undefined>;
  /** Whether there is a login for a repository. */
  covers(repository: string): boolean;
  /** Advice about a refused login, for the person who reads the error of a failed pull. */
  explain(repository: string): string;
}

export interface Refused {
  /** The Authorization that was sent. */
  used: string | undefined;
  /** WWW-Authenticate. */
  challenges: readonly string[];
  /** The challenge comes from /v2/: its scope, if any, is a placeholder. */
  general?: boolean;
}

/** Docker's default for tokens without `expires_in`, in seconds (distribution, "Token
 *  Authentication"). */
const DEFAULT_LIFE = 60;
/** Tokens are renewed this long before they expire. */
const MARGIN_MS = 10_000;
/** How long a password is sent without a new challenge; a changed file is read again after that, or
 *  at the next 401. */
const BASIC_LIFE_MS = 60_000;
/** The most characters of all cached tokens together: clients may name any number of repositories,
 *  and some registries issue a token for each. */
const MAX_TOKENS_SIZE = 8 * 1024 * 1024;
const MAX_TOKEN_LENGTH = 256 * 1024;
/** The cost of an entry besides its token, in characters. */
const ENTRY_COST = 512;
const TOKEN_TIMEOUT_MS = 20_000;
/** How long a token request continues after its last caller has left, in ms. */
const TOKEN_LINGER_MS = 1000;

/** Gets and caches tokens and passwords for one origin, and sends each only where it may go
 *  (promise 12). */
export function createAuthorizer({ origin, credentials, authHosts, ask }: AuthorizerOptions): Authorizer {
  const authority: Authority = {
    origin,
    authHosts,
    ask,
    credentials: [...credentials].sort((a, b) => b.repositories.length - a.repositories.length),
    tokens: new LRUCache({
      maxSize: MAX_TOKENS_SIZE,
      sizeCalculation: ({ authorization }) => authorization.length + ENTRY_COST,
    }),
    share: singleFlight({ timeoutMs: TOKEN_TIMEOUT_MS, lingerMs: TOKEN_LINGER_MS }),
    challenge: undefined,
    withheld: new LRUCache({ max: 100 }),
  };
  return {
    current: (access) => current(authority, access),
    covers: (repository) => loginFor(authority, repository) !== undefined,
    prepare: (access, signal) => prepare(authority, access, signal),
    answer: (access, refused, signal) => answer(authority, access, { ...refused, signal }),
    explain: (repository) => explain(authority, repository),
  };
}

interface Authority extends Omit<AuthorizerOptions, 'credentials'> {
  /** Those with the longest prefix first. */
  credentials: readonly Credentials[];
  tokens: LRUCache<string, { authorization: string; until: number }>;
  share: SingleFlight<string | undefined>;
  /** The challenge that this origin has sent. */
  challenge: Challenge | undefined;
  /** Hosts of token services to which credentials were not sent, by repository. */
  withheld: LRUCache<string, string>;
}

function loginFor({ credentials }: Authority, repository: string): Credentials | undefined {
  return credentials.find((candidate) => repository.startsWith(candidate.repositories));
}

function current({ tokens }: Authority, access: Access): string | undefined {
  const key = keyOf(access);
  const found = tokens.get(key) ?? tokens.get(keyOf({ ...access, action: 'pull' }));
  if (found === undefined || found.until > Date.now()) return found?.authorization;
  tokens.delete(key);
  return undefined;
}

async function prepare(authority: Authority, access: Access, signal: AbortSignal): Promise<string | undefined> {
  const known = current(authority, access);
  const { challenge } = authority;
  if (known !== undefined || challenge === undefined || loginFor(authority, access.repository) === undefined) return known;
  return logIn(authority, access, { challenges: [challenge], signal }).catch((error: unknown) => {
    signal.throwIfAborted();
    if (error instanceof OciError && error.code !== 'TOOMANYREQUESTS') return undefined; // the request may work without a login
    throw error;
  });
}

async function answer(
  authority: Authority,
  access: Access,
  { used, challenges: headers, general = false, signal }: Refused & { signal: AbortSignal },
): Promise<string | undefined> {
  const known = current(authority, access);
  if (known !== undefined && known !== used) return known; // another request has logged in in the meantime
  authority.tokens.delete(keyOf(access));
  const challenges = parseChallenges(headers);
  const [first] = challenges.filter(({ scheme }) => scheme === 'bearer' || scheme === 'basic');
  if (first !== undefined) authority.challenge = withoutScope(first);
  return logIn(authority, access, { challenges: general ? challenges.map(withoutScope) : challenges, signal });
}

async function logIn(
  authority: Authority,
  access: Access,
  { challenges, signal }: { challenges: readonly Challenge[]; signal: AbortSignal },
): Promise<string | undefined> {
  const token = challenges.find(({ scheme }) => scheme === 'bearer');
  const key = `${keyOf(access)} ${token?.parameters['scope'] ?? ''}`;
  const got =
    token === undefined
      ? undefined
      : await authority.share(key, signal, (signal) => getToken(authority, access, { parameters: token.parameters, signal }));
  if (got !== undefined || !challenges.some(({ scheme }) => scheme === 'basic')) return got;
  const authorization = await basic(authority, access.repository);
  return authorization === undefined ? undefined : keep(authority, access, { authorization, lifeMs: BASIC_LIFE_MS });
}

/** @returns undefined: the token service refuses the login
 *  @throws OciError TOOMANYREQUESTS, UNAVAILABLE; what `ask` throws */
async function getToken(
  authority: Authority,
  access: Access,
  { parameters, signal }: { parameters: Challenge['parameters']; signal: AbortSignal },
): Promise<string | undefined> {
  const { origin, ask, withheld } = authority;
  const { repository } = access;
  const url = tokenUrl(origin, access, parameters);
  const login = await basic(authority, repository);
  if (login !== undefined && !maySeeCredentials(authority, url)) withheld.set(repository, url.host);
  const answer = await ask(url, (target) => (maySeeCredentials(authority, target) ? login : undefined), signal);
  if (answer.status === 401 || answer.status === 403) return undefined;
  if (answer.status === 429) {
    const after = answer.retryAfter === undefined ? {} : { retryAfter: answer.retryAfter };
    throw new OciError('TOOMANYREQUESTS', `${url.host} issues no more tokens for now`, { origin: 'upstream', ...after });
  }
  const { token, life } = parseToken(answer.status === 200 ? answer.body : '');
  if (token === undefined)
    throw new OciError('UNAVAILABLE', `${url.host} answered ${answer.status} instead of a token`, { origin: 'upstream' });
  return keep(authority, access, { authorization: `Bearer ${token}`, lifeMs: life * 1000 - Math.min(MARGIN_MS, (life * 1000) / 2) });
}

async function basic(authority: Authority, repository: string): Promise<string | undefined> {
  const login = loginFor(authority, repository);
  if (login === undefined) return undefined;
  const pair = `${await login.username()}:${await login.password()}`;
  return `Basic ${Buffer.from(pair).toString('base64')}`;
}

function maySeeCredentials({ origin, authHosts }: Authority, { protocol, host, hostname }: URL): boolean {
  if (protocol !== 'https:' && origin.protocol === 'https:') return false;
  if (host === origin.host || hostname === origin.hostname) return true;
  return authHosts.some((own) => (own.startsWith('*.') ? hostname.endsWith(own.slice(1)) : own === host));
}

function keep({ tokens }: Authority, access: Access, { authorization, lifeMs }: { authorization: string; lifeMs: number }): string {
  tokens.set(keyOf(access), { authorization, until: Date.now() + lifeMs });
  return authorization;
}

function explain(authority: Authority, repository: string): string {
  const host = authority.withheld.get(repository);
  if (host !== undefined)
    return `its token service is on ${host}, to which the credentials were not sent: add ${host} to the upstream's authHosts if it may see them`;
  if (loginFor(authority, repository) !== undefined) return 'check its credentials';
  return 'check the name, or configure credentials for it';
}

function keyOf({ scopeName, action }: Access): string {
  return action === 'pull' ? scopeName : `${scopeName} ${action}`;
}

function withoutScope({ scheme, parameters }: Challenge): Challenge {
  const { scope: _, ...rest } = parameters;
  return { scheme, parameters: rest };
}

/** @throws OciError UNAVAILABLE: the challenge names no token service */
function tokenUrl(origin: URL, { scopeName }: Access, { realm = '', service, scope = '' }: Record<string, string>): URL {
  const url = URL.parse(realm);
  if (url === null || !['http:', 'https:'].includes(url.protocol))
    throw new OciError('UNAVAILABLE', `${origin.host} names no token service`, { origin: 'upstream' });
  if (service !== undefined) url.searchParams.set('service', service);
  const scopes = scope.split(/\s+/).filter((part) => part !== '');
  for (const part of scopes.length === 0 ? [`repository:${scopeName}:pull`] : scopes) url.searchParams.append('scope', part);
  return url;
}

/** Reads a token service's answer: `token`, or `access_token` where that is missing or empty.
 *  `life` is in seconds. */
function parseToken(body: string): { token?: string; life: number } {
  try {
    const document = JSON.parse(body) as Record<string, unknown> | null;
    const life = Number(document?.['expires_in']);
    const found = [document?.['token'], document?.['access_token']].find(isToken);
    return { ...(found === undefined ? {} : { token: found }), life: life > 0 ? life : DEFAULT_LIFE };
  } catch {
    return { life: DEFAULT_LIFE }; // not JSON: no token, which the caller reports
  }
}

function isToken(value: unknown): value is string {
  return typeof value === 'string' && value.length <= MAX_TOKEN_LENGTH && /^[\x21-\x7e]+$/.test(value);
}
