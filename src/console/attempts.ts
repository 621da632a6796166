import { LRUCache } from 'lru-cache';
import { OciError } from '../oci/error.ts';

/** Limits how often passwords may be guessed. */
export interface Attempts {
  /** @throws OciError TOOMANYREQUESTS: this address, or this address for this user, has failed too often lately */
  require(this: void, address: string, user: string): void;
  failed(this: void, address: string, user: string): void;
  succeeded(this: void, address: string, user: string): void;
}

const WINDOW_MS = 5 * 60_000;
/** Wrong passwords of one address for one user: others of the user's addresses are not locked out. */
const MAX_PER_USER = 10;
/** Wrong passwords of one address: everybody who comes through one gateway has the same. */
const MAX_PER_ADDRESS = 100;
const MAX_REMEMBERED = 10_000;

/** @param now ms since the epoch */
export function createAttempts({ now }: { now: () => number }): Attempts {
  const failures = new LRUCache<string, { count: number; since: number }>({ max: MAX_REMEMBERED });

  function current(key: string): { count: number; since: number } {
    const found = failures.get(key);
    return found === undefined || now() - found.since >= WINDOW_MS ? { count: 0, since: now() } : found;
  }

  function check(key: string, max: number): void {
    const { count, since } = current(key);
    if (count < max) return;
    const seconds = Math.ceil((since + WINDOW_MS - now()) / 1000);
    throw new OciError('TOOMANYREQUESTS', `too many wrong passwords: try again in ${seconds} s`, { retryAfter: seconds });
  }

  function note(key: string): void {
    const { count, since } = current(key);
    failures.set(key, { count: count + 1, since });
  }

  return {
    require(address, user) {
      check(`${address} ${user}`, MAX_PER_USER);
      check(address, MAX_PER_ADDRESS);
    },
    failed(address, user) {
      note(`${address} ${user}`);
      note(address);
    },
    succeeded: (address, user) => void failures.delete(`${address} ${user}`),
  };
}
