import type { Pace } from './helpers.ts';

/** A helper's smallest worthwhile segment, in bytes: serial 4 MiB segments were measured to take
 *  1.8 times as long as one stream. */
const MIN_SEGMENT_BYTES = 4 * 1024 * 1024;
/** How long the speed of a download is measured before another connection is taken, in ms, in
 *  addition to two round trips. */
const MEASURED_MS = 80;
/** The longest round trip that is derived from the wait for the first headers, in ms: that wait may
 *  include a handshake, a token request or a stall. */
const MAX_ROUND_TRIP_MS = 300;
/** A download that needs less time than this to end takes no connection, in ms. It would gain
 *  little, and the bytes in the buffers of the connection that is cut for the new one (megabytes if
 *  the upstream is near) would be sent twice. */
const MIN_LEFT_MS = 2000;
/** A chunk of this many bytes had to wait for its reader. */
const CROWDED_BYTES = 256 * 1024;
/** How long no connection is taken after one that delivered less than half of its share, in ms. */
const UNPAID_MS = 2000;
/** Additional connections have paid off if the speed grew at least by this factor. */
const PAID = 1.3;

/** Decides when another connection is worthwhile: one round trip must be short compared with the
 *  time that the connection would download for, the previous connection must have paid off, and
 *  bytes must not arrive faster than they are read. On a saturated network, another connection only
 *  wastes the bytes in flight to the connection that is cut for it. */
export interface Speed {
  /** The first headers have arrived. */
  opened(): void;
  /** A chunk of a body has arrived. */
  arrived(this: void, chunkBytes: number): void;
  /** The fewest bytes that another connection should download; undefined: none should be taken now.
   *  @param received of the whole download so far, in bytes @param left until the whole has
   *  arrived, in bytes @param connections that run now */
  worth(received: number, left: number, connections: number): number | undefined;
  /** Another connection has been taken. */
  hired(received: number, connections: number): void;
  /** The speed of one connection, if additional ones have paid off. */
  pace(received: number): Pace | undefined;
}

/** When a connection was taken, how many bytes had arrived by then, and the speed of all
 *  connections together, in bytes per millisecond. */
interface Hire {
  at: number;
  received: number;
  rate: number;
  connections: number;
}

export function createSpeed(now: () => number = () => performance.now()): Speed {
  const startedAt = now();
  let openedAt = startedAt;
  /** Bytes that have arrived since the last connection was taken, and how many of them in chunks of
   *  the maximum size. */
  let arrived = 0;
  let crowded = 0;
  let first: Hire | undefined;
  let last: Hire | undefined;

  const roundTrip = (): number => Math.min(openedAt - startedAt, MAX_ROUND_TRIP_MS);
  const rateSince = (hire: Hire | undefined, received: number): { since: number; rate: number } => {
    const since = now() - (hire?.at ?? openedAt);
    return { since, rate: (received - (hire?.received ?? 0)) / since };
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
      const { since, rate } = rateSince(last, received);
      if (since < MEASURED_MS + 2 * roundTrip() || left < MIN_LEFT_MS * rate || 2 * crowded > arrived) return undefined;
      const paid = last === undefined || rate >= last.rate * (1 + 0.5 / last.connections);
      if (!paid && since < UNPAID_MS) return undefined;
      return worthwhile({ rate: rate / connections, roundTripMs: roundTrip() });
    },
    hired(received, connections) {
      last = { at: now(), received, rate: rateSince(last, received).rate, connections };
      first ??= last;
      arrived = crowded = 0;
    },
    pace(received) {
      if (first === undefined || rateSince(first, received).rate < PAID * first.rate) return undefined;
      return { rate: first.rate / first.connections, roundTripMs: roundTrip() };
    },
  };
}

/** The fewest bytes that a connection should download. */
export function worthwhile({ rate, roundTripMs }: Pace): number {
  return Math.max(MIN_SEGMENT_BYTES, Math.max(10 * roundTripMs, 100) * rate);
}

/** The number of connections, at most `max`, with which a download of `left` bytes should start. */
export function partsAt(pace: Pace, { left, max }: { left: number; max: number }): number {
  if (left < MIN_LEFT_MS * pace.rate) return 1;
  return Math.max(1, Math.min(max, Math.floor(left / worthwhile(pace))));
}
