import { LRUCache } from 'lru-cache';
import { OciError } from '../oci/error.ts';

/** Limits how often passwords may be guessed. */
export interface Attempts {
  /** Counts an attempt before the password is checked, so that simultaneous attempts cannot bypass
   *  the limit.
   *  @returns a function to call if the password was right, so that the attempt does not count
   *  @throws OciError TOOMANYREQUESTS: too many recent failures of this address, or of this address
   *  for this user */
  begin(this: void, address: string, user: string): () => void;
}

const WINDOW_MS = 5 * 60_000;
/** Wrong passwords from one address for one user. The user's other addresses are not locked out. */
const MAX_PER_USER = 10;
/** Wrong passwords from one address. All clients behind one gateway have the same address, so the
 *  limit is higher. */
const MAX_PER_ADDRESS = 100;
const MAX_REMEMBERED = 10_000;

/** @param now ms since the epoch */
export function createAttempts({ now }: { now: () => number }): Attempts {
  const counts = new LRUCache<string, { count: number; since: number }>({ max: MAX_REMEMBERED });

  function current(key: string): { count: number; since: number } {
    const found = counts.get(key);
    if (found !== undefined && now() - found.since < WINDOW_MS) return found;
    const fresh = { count: 0, since: now() };
    counts.set(key, fresh);
    return fresh;
  }

  function require({ count, since }: { count: number; since: number }, max: number): void {
    if (count < max) return;
    const seconds = Math.ceil((since + WINDOW_MS - now()) / 1000);
    throw new OciError('TOOMANYREQUESTS', `too many wrong passwords: try again in ${seconds} s`, { retryAfter: seconds });
  }

  return {
    begin(address, user) {
      const [byUser, byAddress] = [current(`${address} ${user}`), current(address)];
      require(byUser, MAX_PER_USER);
      require(byAddress, MAX_PER_ADDRESS);
      byUser.count++;
      byAddress.count++;
      return () => {
        byUser.count = 0;
        byAddress.count--;
      };
    },
  };
}
