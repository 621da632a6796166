/** Slots for work that costs memory and time, shared fairly by clients. */
export interface FairSlots {
  /** Waits for a slot. Waiting clients take turns, however many requests each has sent.
   *  @returns a function that releases the slot, or undefined if the client has too many requests
   *  waiting, or `signal` aborted */
  take(client: string, signal: AbortSignal): Promise<(() => void) | undefined>;
}

export interface FairSlotsOptions {
  /** Slots in all. */
  total: number;
  /** Slots of one client. */
  perClient: number;
  /** Requests of one client that may wait. */
  maxWaiting: number;
}

type Waiter = (granted: boolean) => void;

export function createFairSlots({ total, perClient, maxWaiting }: FairSlotsOptions): FairSlots {
  const waiting = new Map<string, Waiter[]>();
  const taken = new Map<string, number>();
  /** When each client that waits or has a slot got its last one, as a count of all slots given. */
  const served = new Map<string, number>();
  let given = 0;
  let free = total;

  /** The client whose turn is next: the one that has waited longest. */
  function nextClient(): string | undefined {
    let next: string | undefined;
    for (const [client, waiters] of waiting) {
      const mayTake = waiters.length > 0 && (taken.get(client) ?? 0) < perClient;
      if (mayTake && (next === undefined || (served.get(client) ?? 0) < (served.get(next) ?? 0))) next = client;
    }
    return next;
  }

  function grant(): void {
    for (let client = nextClient(); client !== undefined && free > 0; client = nextClient()) {
      free--;
      taken.set(client, (taken.get(client) ?? 0) + 1);
      served.set(client, ++given);
      waiting.get(client)?.shift()?.(true);
    }
  }

  function forgetIfIdle(client: string): void {
    if (waiting.get(client)?.length === 0) waiting.delete(client);
    if (!waiting.has(client) && !taken.has(client)) served.delete(client);
  }

  function giveBack(client: string): void {
    const left = (taken.get(client) ?? 0) - 1;
    if (left > 0) taken.set(client, left);
    else taken.delete(client);
    free++;
    grant();
    forgetIfIdle(client);
  }

  return {
    async take(client, signal) {
      const waiters = waiting.get(client) ?? [];
      if (signal.aborted || waiters.length >= maxWaiting) return undefined;
      const { promise, resolve } = Promise.withResolvers<boolean>();
      const stop = (): void => {
        const index = waiters.indexOf(resolve);
        if (index !== -1) waiters.splice(index, 1);
        forgetIfIdle(client);
        resolve(false);
      };
      waiters.push(resolve);
      waiting.set(client, waiters);
      signal.addEventListener('abort', stop, { once: true });
      grant();
      const granted = await promise;
      signal.removeEventListener('abort', stop);
      if (!granted) return undefined;
      let held = true;
      return () => {
        if (held) giveBack(client);
        held = false;
      };
    },
  };
}
