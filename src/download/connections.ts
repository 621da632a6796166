import { createAdditionalConnections, createDemands, nextSegment } from './additional-connections.ts';
import type { Helpers, Pace } from './helpers.ts';
import { createSegmentRequests } from './segment-requests.ts';
import { createSegment, createSegments, type Segment } from './segments.ts';
import type { SourceList } from './source.ts';
import { createSpeed, partsAt, worthwhile } from './speed.ts';
import type { DownloadState } from './state.ts';

export interface ConnectionsOptions {
  state: DownloadState;
  sources: SourceList;
  helpers: Helpers;
  /** The maximum number of parallel connections. */
  max: number;
  /** Where the first request begins. */
  start: number;
  /** The size of the blob in bytes, if a manifest states it. */
  expectedSize?: number | undefined;
}

/** The connections of one download, which write the blob to its spool. */
export interface Connections {
  /** Resolves when the source has answered; rejects as it does. */
  readonly opened: Promise<void>;
  /** Resolves when no connection is left: the whole blob has arrived, the download has failed, or
   *  its spool is full. Never rejects. */
  readonly ended: Promise<void>;
  /** Whether any connection is still running. */
  running(): boolean;
  /** As `Demands.demand`. */
  demand(this: void, reader: object, position: number): void;
  /** As `Demands.release`. */
  release(this: void, reader: object): void;
}

export function startConnections({ state, sources, helpers, max, start, expectedSize }: ConnectionsOptions): Connections {
  const segments = createSegments(state.have);
  const { active } = segments;
  const opened = Promise.withResolvers<void>();
  const ended = Promise.withResolvers<void>();
  opened.promise.catch(() => undefined); // every reader gets the error; there may be none
  const speed = createSpeed();
  const demands = createDemands(state.have, () => additional.serveReaders());
  const requests = createSegmentRequests({ state, sources, segments, speed, onOpen, written });
  const work = { state, segments, demands, requests };
  const additional = createAdditionalConnections({
    ...work,
    sources,
    speed,
    helpers,
    max,
    ended: connectionEnded,
  });
  const opening: Opening = {
    start,
    expectedSize,
    max,
    pace: max > 1 && sources.current() === 'upstream' && state.size === undefined ? helpers.pace() : undefined,
  };
  const first = firstSegment(state, opening);

  function onOpen(): void {
    opened.resolve();
    state.notify();
    if (state.size !== undefined && requests.takesRanges()) additional.take(furtherSegments(first, state.size, opening));
  }

  function written(): void {
    state.notify();
    if (requests.isWanted()) additional.takeHalf();
  }

  /** The connection that every download has. It retries; the download fails only if this connection
   *  fails for good while no other one is running. */
  async function runFirst(first: Segment): Promise<void> {
    for (let segment: Segment | undefined = first; segment !== undefined; segment = nextSegment(work)) {
      segments.start(segment);
      try {
        await requests.persist(segment);
        segments.stop(segment);
      } catch (error) {
        segments.stop(segment);
        if (active.size === 0 || !requests.isOpen()) fail(error);
        break;
      }
    }
    connectionEnded();
  }

  /** Ends the download after its last connection, unless parts are missing still. */
  function connectionEnded(): void {
    if (active.size > 0) return;
    const missing = nextSegment(work);
    if (missing !== undefined) return void runFirst(missing);
    demands.close();
    const learned = additional.haveFailed() ? undefined : speed.pace(state.received);
    if (learned !== undefined && sources.current() === 'upstream') helpers.learn(learned);
    ended.resolve();
  }

  function fail(error: unknown): void {
    opened.reject(error);
    state.fail(error);
  }

  void runFirst(first);
  return {
    opened: opened.promise,
    ended: ended.promise,
    running: () => active.size > 0,
    demand: demands.demand,
    release: demands.release,
  };
}

/** The properties of a download before its source has answered. */
interface Opening {
  /** Where the first request begins. */
  start: number;
  /** The size of the blob in bytes, if a manifest states it. */
  expectedSize: number | undefined;
  /** The maximum number of parallel connections. */
  max: number;
  /** The speed of one connection, if several connections are known to be faster. */
  pace: Pace | undefined;
}

/** The first segment: the first range that an earlier download has not left, else the whole blob.
 *  If several connections are known to be faster, each requests only its own range. */
function firstSegment({ have, size }: Pick<DownloadState, 'have' | 'size'>, { start, expectedSize, max, pace }: Opening): Segment {
  const [gap] = size === undefined ? [] : [...have.gaps(start, size), ...have.gaps(0, size)];
  if (gap !== undefined) return createSegment(...gap);
  if (pace === undefined) return createSegment(start, Infinity);
  if (expectedSize === undefined) return createSegment(start, start + worthwhile(pace));
  const left = expectedSize - start;
  const parts = partsAt(pace, { left, max });
  return createSegment(start, parts === 1 ? Infinity : start + Math.ceil(left / parts));
}

/** The segments for additional connections that start once the size is known. The first connection
 *  continues after its segment until it has downloaded as much as each of them. */
function furtherSegments(first: Segment, size: number, { start, max, pace }: Opening): Segment[] {
  if (pace === undefined || first.end === Infinity) return [];
  const left = size - start;
  const share = Math.ceil(left / Math.max(2, partsAt(pace, { left, max })));
  const segments: Segment[] = [];
  for (let from = Math.max(first.end, start + share); from < size; from += share) {
    segments.push(createSegment(from, Math.min(from + share, size)));
  }
  return segments;
}
