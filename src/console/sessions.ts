import { createHash, randomBytes } from 'node:crypto';
import type { Authenticate } from '../server/basic-auth.ts';
import type { Users } from '../server/htpasswd.ts';
import { createAttempts } from './attempts.ts';

/** A session of a logged-in user. */
export interface Session {
  user: string;
  /** Milliseconds since the epoch. */
  expiresAt: number;
}

export interface Sessions {
  /** Checks a user's password, and creates a session.
   *  @returns the session's token, which cannot be guessed; undefined: the user or the password is
   *  wrong
   *  @throws OciError TOOMANYREQUESTS: too many wrong passwords, or too many logins at once */
  begin(this: void, login: Login): Promise<{ token: string; session: Session } | undefined>;
  /** Undefined: there is no such session, it has expired, or the user's password has changed
   *  since. */
  find(this: void, token: string): Promise<Session | undefined>;
  end(this: void, token: string): void;
}

export interface Login {
  user: string;
  password: string;
  /** The client's IP address. */
  address: string;
  isGone(this: void): boolean;
}

export interface SessionsOptions {
  authenticate: Authenticate;
  /** The users of registry.console.users. */
  users(this: void): Promise<Users>;
  /** How long a session lasts, in ms. */
  lifeMs: number;
  /** Milliseconds since the epoch. */
  now?: () => number;
}

/** At most this many sessions; beyond that, the oldest end. */
const MAX_SESSIONS = 1000;
const TOKEN_BYTES = 32;
/** The form of a token in a cookie. */
const TOKEN = /^[A-Za-z0-9_-]{43}$/;

interface Kept extends Session {
  /** The hash of the user's password. */
  passwordHash: string;
}

/** Sessions in memory, which end with the process. They are stored under hashes of their tokens, so
 *  that neither the time of a lookup nor the memory of the process reveals a token. */
export function createSessions({ authenticate, users, lifeMs, now = Date.now }: SessionsOptions): Sessions {
  const sessions = new Map<string, Kept>();
  const attempts = createAttempts({ now });
  const keyOf = (token: string) => createHash('sha256').update(token).digest('base64');

  function forgetOld(): void {
    for (const [key, { expiresAt }] of sessions) {
      if (expiresAt > now() && sessions.size < MAX_SESSIONS) break; // oldest first
      sessions.delete(key);
    }
  }

  return {
    async begin({ user, password, address, isGone }) {
      const succeeded = attempts.begin(address, user);
      // A name with a colon would be read as another name and a part of the password.
      const header = `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;
      const isRight = !user.includes(':') && (await authenticate(header, { address, isGone }));
      const passwordHash = isRight ? (await users()).get(user) : undefined;
      if (passwordHash === undefined) return undefined;
      succeeded();
      forgetOld();
      const token = randomBytes(TOKEN_BYTES).toString('base64url');
      const session = { user, expiresAt: now() + lifeMs };
      sessions.set(keyOf(token), { ...session, passwordHash });
      return { token, session };
    },

    async find(token) {
      if (!TOKEN.test(token)) return undefined;
      const key = keyOf(token);
      const found = sessions.get(key);
      if (found === undefined) return undefined;
      const isValid = found.expiresAt > now() && (await users()).get(found.user) === found.passwordHash;
      if (isValid) return { user: found.user, expiresAt: found.expiresAt };
      sessions.delete(key);
      return undefined;
    },

    end: (token) => void sessions.delete(keyOf(token)),
  };
}
