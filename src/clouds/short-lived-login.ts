import { raceAbort } from '../async/race-abort.ts';
import { singleFlight } from '../async/single-flight.ts';
import { OciError } from '../oci/error.ts';

/** A user name and password that a cloud issued for one of its registries. */
export interface Login {
  username: string;
  password: string;
  /** When the password stops working, in ms since 1970. */
  expires: number;
}

/** Proves an identity to a cloud, which then issues a login.
 *  @throws Error of the cloud's library, or the signal's reason */
export type LogIn = (signal: AbortSignal) => Promise<Login>;

/** The same as `Credentials` of an upstream: each call returns a login that is valid now. */
export interface ShortLivedLogin {
  /** @throws OciError UNAVAILABLE */
  username(this: void): Promise<string>;
  /** @throws OciError UNAVAILABLE */
  password(this: void): Promise<string>;
}

export interface ShortLivedOptions {
  /** The cloud and its registry, for error messages: `Amazon ECR in eu-west-1`. */
  issuer: string;
  /** What to check when the cloud refuses, for error messages. */
  advice: string;
  /** Called when a login cannot be renewed while the present one is still valid. */
  onRenewalFailed: (error: OciError) => void;
}

/** How long a cloud may take to issue a login, in ms. */
const LOG_IN_TIMEOUT_MS = 15_000;
/** A login is renewed once this share of its life is over, while the present one still works. */
const RENEW_AFTER_SHARE = 0.75;
/** A login is no longer used in the last milliseconds before it expires, because a request takes a
 *  while. */
const MARGIN_MS = 30_000;
/** A new login is used for this long at least, in ms, even if it has expired by this machine's
 *  clock, which may be wrong. */
const MIN_LIFE_MS = 60_000;
/** The pause after a failure before the cloud is asked again, in ms: pulls come by the hundred. */
const RETRY_PAUSE_MS = 10_000;
const MAX_CAUSE_LENGTH = 300;

/** Logs in when a login is first needed, once for all callers that wait, and renews it before it
 *  expires. */
export function createShortLivedLogin(logIn: LogIn, { issuer, advice, onRenewalFailed }: ShortLivedOptions): ShortLivedLogin {
  const share = singleFlight<Login>({ timeoutMs: LOG_IN_TIMEOUT_MS });
  let known: { login: Login; renewAt: number; usableUntil: number } | undefined;
  let failure: { error: OciError; until: number } | undefined;

  async function renew(signal: AbortSignal): Promise<Login> {
    const asked = Date.now();
    try {
      const login = await raceAbort(logIn(signal), signal);
      const usableUntil = Math.max(login.expires - MARGIN_MS, asked + MIN_LIFE_MS);
      known = { login, usableUntil, renewAt: asked + (usableUntil - asked) * RENEW_AFTER_SHARE };
      failure = undefined;
      return login;
    } catch (cause) {
      const error = new OciError('UNAVAILABLE', `${issuer} issues no password (${describe(cause)}): ${advice}`, {
        cause,
        origin: 'upstream',
        retryAfter: RETRY_PAUSE_MS / 1000,
      });
      failure = { error, until: Date.now() + RETRY_PAUSE_MS };
      throw error;
    }
  }

  function request(): Promise<Login> {
    if (failure !== undefined && Date.now() < failure.until) return Promise.reject(failure.error);
    return share('', new AbortController().signal, renew);
  }

  async function current(): Promise<Login> {
    const now = Date.now();
    if (known === undefined || now >= known.usableUntil) return request();
    const isPaused = failure !== undefined && now < failure.until;
    if (now >= known.renewAt && !isPaused) request().catch((error: unknown) => onRenewalFailed(error as OciError));
    return known.login;
  }

  return {
    username: async () => (await current()).username,
    password: async () => (await current()).password,
  };
}

function describe(cause: unknown): string {
  const { name = '', message = '' } = cause as Partial<Error>;
  const text = name === '' || name === 'Error' || message.startsWith(name) ? message : `${name}: ${message}`;
  return text.replaceAll(/\s+/g, ' ').trim().slice(0, MAX_CAUSE_LENGTH);
}
