/** A helper's smallest worthwhile segment, in bytes: serial 4 MiB segments were measured to take 1.8 times as long as one stream. */
const MIN_SEGMENT_BYTES = 4 * 1024 * 1024;
/** How long the speed of a download is measured before another connection is taken, in ms beside two round trips. */
const MEASURED_MS = 80;
/** What the wait for the first headers counts for at most, in ms: it may include a handshake, a token, or a stall. */
const MAX_ROUND_TRIP_MS = 300;
/** How long none is taken after one that brought less than half of its share, in ms. */
const UNPAID_MS = 2000;

/** Decides when another connection is worth it: when one round trip is small beside what it would bring, and the one taken before has
 *  paid. Where the network is full, another one only costs what is on its way to the connection that is cut for it. */
export interface Speed {
  /** The first headers have arrived. */
  opened(): void;
  /** How many bytes a further connection should bring at least; undefined: none should be taken now.
   *  @param received of the whole download so far, in bytes @param connections that run now */
  worth(received: number, connections: number): number | undefined;
  /** One more has been taken. */
  hired(received: number, connections: number): void;
}

export function createSpeed(now: () => number = () => performance.now()): Speed {
  const startedAt = now();
  let openedAt = startedAt;
  /** When the last connection was taken, what had arrived by then, and how fast: bytes a millisecond, of all connections together. */
  let last: { at: number; received: number; rate: number; connections: number } | undefined;

  const rateSince = (received: number): { since: number; rate: number } => {
    const since = now() - (last?.at ?? openedAt);
    return { since, rate: (received - (last?.received ?? 0)) / since };
  };

  return {
    opened() {
      openedAt = now();
    },
    worth(received, connections) {
      const roundTrip = Math.min(openedAt - startedAt, MAX_ROUND_TRIP_MS);
      const { since, rate } = rateSince(received);
      if (since < MEASURED_MS + 2 * roundTrip) return undefined;
      const paid = last === undefined || rate >= last.rate * (1 + 0.5 / last.connections);
      if (!paid && since < UNPAID_MS) return undefined;
      return Math.max(MIN_SEGMENT_BYTES, (Math.max(10 * roundTrip, 100) * rate) / connections);
    },
    hired(received, connections) {
      last = { at: now(), received, rate: rateSince(received).rate, connections };
    },
  };
}
