import type { Helpers } from './helpers.ts';
import type { SegmentRequests } from './segment-requests.ts';
import type { Segment, Segments } from './segments.ts';
import type { SourceList } from './source.ts';
import type { Speed } from './speed.ts';
import type { ByteRanges } from './spool/byte-ranges.ts';
import type { DownloadState } from './state.ts';

/** The parts of a download that its connections share. */
export interface Work {
  state: DownloadState;
  segments: Segments;
  demands: Demands;
  requests: SegmentRequests;
}

export interface AdditionalConnectionsOptions extends Work {
  sources: SourceList;
  speed: Speed;
  helpers: Helpers;
  /** The maximum number of parallel connections, the first one included. */
  max: number;
  /** Called when a connection has ended. */
  ended(this: void): void;
}

/** The connections of one download beside its first one. They can do no harm: at the first failure
 *  of one, its segment goes back to the others. */
export interface AdditionalConnections {
  /** Takes connections for these segments, in order, as long as any are free. */
  take(segments: readonly Segment[]): void;
  /** Takes a connection for the second half of the largest segment, if that is worth it. */
  takeHalf(): void;
  /** Assigns connections to the positions where readers wait. If only one connection is allowed, it
   *  moves there. */
  serveReaders(): void;
  /** One of them has failed: if bytes came faster after it was taken, it was not the reason. */
  haveFailed(): boolean;
}

/** The next segment for an idle connection: one that a reader waits for, else the largest
 *  unassigned one. */
export function nextSegment({ state: { size }, segments, demands, requests }: Work): Segment | undefined {
  if (size === undefined || !requests.isWanted()) return undefined;
  for (const position of demands.positions()) {
    const segment = segments.at(position, size);
    if (segment !== undefined) return segment;
  }
  return segments.largest(size);
}

export function createAdditionalConnections(options: AdditionalConnectionsOptions): AdditionalConnections {
  const { state, sources, segments, demands, requests, speed, helpers, max, ended } = options;
  const { active } = segments;
  let haveFailed = false;

  async function run(first: Segment, release: () => void): Promise<void> {
    for (let segment: Segment | undefined = first; segment !== undefined; segment = nextSegment(options)) {
      segments.start(segment);
      try {
        await requests.attempt(segment);
        segments.stop(segment);
      } catch {
        segments.stop(segment);
        haveFailed = true;
        if (!state.signal.aborted) helpers.discourage();
        break;
      }
    }
    release();
    ended();
  }

  return {
    take(parts) {
      for (const part of parts) {
        const release = active.size < max ? helpers.take() : undefined;
        if (release === undefined) return;
        void run(part, release);
      }
    },

    takeHalf() {
      const { size, received } = state;
      if (size === undefined || !requests.takesRanges() || active.size >= max) return;
      if (sources.current() === 'replica' || helpers.isBusy()) return;
      const worth = speed.worth(received, size - state.have.total(), active.size);
      if (worth === undefined) return;
      const release = helpers.take();
      if (release === undefined) return;
      const half = segments.half(worth);
      if (half === undefined) return release();
      speed.hired(received, active.size);
      void run(half, release);
    },

    serveReaders() {
      const { size } = state;
      if (size === undefined || !requests.takesRanges() || !requests.isWanted() || active.size === 0) return;
      const positions = demands.awaited(size);
      for (const position of positions) {
        if (active.size >= max) break;
        const release = helpers.take();
        if (release === undefined) break;
        const segment = segments.at(position, size);
        if (segment === undefined) release();
        else void run(segment, release);
      }
      const [only] = active;
      if (max > 1 || only === undefined || positions.length === 0) return;
      if (!positions.some(segments.isNear)) only.end = only.reach;
    },

    haveFailed: () => haveFailed,
  };
}

/** How long readers' demands are gathered before connections are assigned to them, in ms. */
const GATHER_MS = 20;

/** The positions at which readers wait. */
export interface Demands {
  /** A reader waits for the byte at `position`. Readers that start together are assigned
   *  connections together: each range then ends where the next one begins, so that requests are not
   *  cut later. */
  demand(this: void, reader: object, position: number): void;
  /** The reader no longer waits. */
  release(this: void, reader: object): void;
  /** The positions that readers have asked for. */
  positions(): Iterable<number>;
  /** The positions before `size` whose bytes have not arrived, last first. */
  awaited(size: number): number[];
  close(): void;
}

/** @param assign called when demands have been gathered */
export function createDemands(have: ByteRanges, assign: () => void): Demands {
  const demands = new Map<object, number>();
  let assigning: NodeJS.Timeout | undefined;
  return {
    demand(reader, position) {
      if (demands.get(reader) === position) return;
      demands.set(reader, position);
      assigning ??= setTimeout(() => {
        assigning = undefined;
        assign();
      }, GATHER_MS);
    },
    release: (reader) => void demands.delete(reader),
    positions: () => demands.values(),
    awaited(size) {
      // Readers no longer wait for bytes that have arrived in the meantime.
      const missing = [...demands.values()].map((position) => have.endFrom(position)).filter((position) => position < size);
      return [...new Set(missing)].sort((one, other) => other - one);
    },
    close: () => clearTimeout(assigning),
  };
}
