import { OciError } from '../oci/error.ts';

/** One login attempt that waits for its turn. */
interface Waiting {
  start: () => void;
  refuse: (error: OciError) => void;
  isGone: () => boolean;
}

export interface LoginAttempt {
  /** The client's IP address. */
  address: string;
  user: string;
  /** True once the client has disconnected: its attempt is dropped. */
  isGone: () => boolean;
}

/** Runs `work` when it is the attempt's turn.
 *  @throws OciError TOOMANYREQUESTS: the queue is full, or the client has disconnected */
export type LoginQueue = <Result>(attempt: LoginAttempt, work: () => Promise<Result>) => Promise<Result>;

export interface LoginQueueLimits {
  /** Attempts checked at once. bcrypt runs on libuv's four threads, which file reads need as
   *  well. */
  maxRunning: number;
  maxWaiting: number;
}

const LIMITS: LoginQueueLimits = { maxRunning: 2, maxWaiting: 1024 };

/** A queue of password checks that is fair: addresses take turns, and so do the user names of one
 *  address. A client that guesses passwords therefore delays others by its share of the turns,
 *  however many attempts it queues. When the queue is full, the newest attempt of the address with
 *  the most attempts is refused, not the one that arrives. */
export function createLoginQueue({ maxRunning, maxWaiting }: LoginQueueLimits = LIMITS): LoginQueue {
  const addresses = new Map<string, Map<string, Waiting[]>>();
  let waiting = 0;
  let running = 0;

  function enqueue({ address, user }: LoginAttempt, entry: Waiting): void {
    const users = addresses.get(address) ?? new Map<string, Waiting[]>();
    addresses.set(address, users);
    const queue = users.get(user) ?? [];
    users.set(user, queue);
    queue.push(entry);
    waiting++;
    if (waiting > maxWaiting) refuseOne();
  }

  /** Removes one entry from the queue of `address` and `user`; both go to the back of their
   *  rotation. */
  function take(address: string, user: string, end: 'oldest' | 'newest'): Waiting | undefined {
    const users = addresses.get(address);
    const queue = users?.get(user);
    const entry = end === 'oldest' ? queue?.shift() : queue?.pop();
    if (users === undefined || queue === undefined || entry === undefined) return undefined;
    waiting--;
    users.delete(user);
    if (queue.length > 0) users.set(user, queue);
    if (end === 'newest' && users.size > 0) return entry; // a refusal does not count as a turn
    addresses.delete(address);
    if (users.size > 0) addresses.set(address, users);
    return entry;
  }

  function refuseOne(): void {
    const countOf = (users: Map<string, Waiting[]>) => [...users.values()].reduce((sum, queue) => sum + queue.length, 0);
    const [address, users] = longest(addresses, countOf);
    const [user] = longest(users, (queue) => queue.length);
    take(address, user, 'newest')?.refuse(
      new OciError('TOOMANYREQUESTS', 'too many logins at once; try again in a moment', { retryAfter: 1 }),
    );
  }

  function startNext(): void {
    while (running < maxRunning) {
      const [address, users] = addresses.entries().next().value ?? [];
      const [user] = users?.keys() ?? [];
      const entry = address === undefined || user === undefined ? undefined : take(address, user, 'oldest');
      if (entry === undefined) return;
      if (entry.isGone()) {
        entry.refuse(new OciError('TOOMANYREQUESTS', 'the client disconnected before its login was checked'));
        continue;
      }
      running++;
      entry.start();
    }
  }

  return async (attempt, work) => {
    const turn = Promise.withResolvers<void>();
    enqueue(attempt, { start: turn.resolve, refuse: turn.reject, isGone: attempt.isGone });
    startNext();
    await turn.promise;
    try {
      return await work();
    } finally {
      running--;
      startNext();
    }
  };
}

/** The entry with the largest `size`; of several, the last. The map must not be empty. */
function longest<Value>(entries: ReadonlyMap<string, Value>, size: (value: Value) => number): [string, Value] {
  return [...entries].reduce((largest, entry) => (size(entry[1]) >= size(largest[1]) ? entry : largest));
}
