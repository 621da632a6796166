/** A helper's smallest worthwhile segment, in bytes: serial 4 MiB segments were measured to take 1.8 times as long as one stream. */
const MIN_SEGMENT_BYTES = 4 * 1024 * 1024;
/** How long the speed of a download is measured before another connection is taken, in ms, in
 *  addition to two round trips. */
const MEASURED_MS = 80;
/** The longest round trip that is derived from the wait for the first headers, in ms: that wait may
 *  include a handshake, a token request or a stall. */
const MAX_ROUND_TRIP_MS = 300;
/** A download that needs less time than this to end takes no connection, in ms: it would save little of it, and what lies in the buffers of
 *  the connection that is cut for it, megabytes where the upstream is near, would come twice. */
const MIN_LEFT_MS = 1000;
/** A chunk of this many bytes had to wait for its reader. */
const CROWDED_BYTES = 240 * 1024;
/** How long no connection is taken after one that brought less than half of its share, in ms. */
const UNPAID_MS = 2000;

/** Decides when another connection is worthwhile: one round trip must be short compared with the
 *  time that the connection would download for, and the previous connection must have paid off. On
 *  a saturated network, another connection only wastes the bytes in flight to the connection that
 *  is cut for it. */
export interface Speed {
  /** The first headers have arrived. */
  opened(): void;
  /** A chunk of a body has arrived. */
  arrived(this: void, chunkBytes: number): void;
  /** The fewest bytes that another connection should download; undefined: none should be taken now.
   *  @param received of the whole download so far, in bytes @param left until the whole has arrived, in bytes @param connections that
   *  run now */
  worth(received: number, left: number, connections: number): number | undefined;
  /** Another connection has been taken. */
  hired(received: number, connections: number): void;
}

export function createSpeed(now: () => number = () => performance.now()): Speed {
  const startedAt = now();
  let openedAt = startedAt;
  /** Bytes that have arrived since the last connection was taken, and those of them in chunks as large as chunks can be: bytes arrived
   *  faster than they were read. */
  let arrived = 0;
  let crowded = 0;
  /** When the last connection was taken, how many bytes had arrived by then, and the speed of all
   *  connections together, in bytes per millisecond. */
  let last: { at: number; received: number; rate: number; connections: number } | undefined;

  const rateSince = (received: number): { since: number; rate: number } => {
    const since = now() - (last?.at ?? openedAt);
    return { since, rate: (received - (last?.received ?? 0)) / since };
  };

  return {
    opened() {
      openedAt = now();
    },
    arrived(chunkBytes) {
      arrived += chunkBytes;
      if (chunkBytes >= CROWDED_BYTES) crowded += chunkBytes;
    },
    worth(received, left, connections) {
      const roundTrip = Math.min(openedAt - startedAt, MAX_ROUND_TRIP_MS);
      const { since, rate } = rateSince(received);
      if (since < MEASURED_MS + 2 * roundTrip) return undefined;
      const paid = last === undefined || rate >= last.rate * (1 + 0.5 / last.connections);
      if ((!paid && since < UNPAID_MS) || left < MIN_LEFT_MS * rate || 2 * crowded > arrived) return undefined;
      return Math.max(MIN_SEGMENT_BYTES, (Math.max(10 * roundTrip, 100) * rate) / connections);
    },
    hired(received, connections) {
      arrived = crowded = 0;
      last = { at: now(), received, rate: rateSince(received).rate, connections };
    },
  };
}
