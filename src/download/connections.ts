import {
  createAdditionalConnections,
  createDemands,
  nextSegment,
  type AdditionalConnections,
  type Work,
} from './additional-connections.ts';
import type { Helpers, Pace } from './helpers.ts';
import { createSegmentRequests } from './segment-requests.ts';
import { createSegment, createSegments, type Segment } from './segments.ts';
import type { SourceList } from './source.ts';
import { createSpeed, partsAt, worthwhile, type Speed } from './speed.ts';
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
  /** Whether the source has answered. */
  hasOpened(): boolean;
  /** Whether any connection is still running. */
  running(): boolean;
  /** As `Demands.demand`. */
  demand(this: void, reader: object, position: number): void;
  /** As `Demands.release`. */
  release(this: void, reader: object): void;
}

export function startConnections(options: ConnectionsOptions): Connections {
  const { state, sources, helpers, max } = options;
  const segments = createSegments(state.have);
  const speed = createSpeed();
  const demands = createDemands(state.have, () => additional.serveReaders());
  const requests = createSegmentRequests({ ...options, segments, speed, onOpen: () => opened(running), written: () => written(running) });
  const work = { state, segments, demands, requests };
  const additional = createAdditionalConnections({ ...work, sources, speed, helpers, max, ended: () => connectionEnded(running) });
  const opening = openingOf(options);
  const running: Running = {
    ...options,
    work,
    speed,
    additional,
    opening,
    first: firstSegment(state, opening),
    opened: Promise.withResolvers<void>(),
    ended: Promise.withResolvers<void>(),
  };
  running.opened.promise.catch(() => undefined); // every reader gets the error; there may be none
  void runFirst(running, running.first);
  return {
    opened: running.opened.promise,
    ended: running.ended.promise,
    hasOpened: () => requests.isOpen(),
    running: () => segments.active.size > 0,
    demand: demands.demand,
    release: demands.release,
  };
}

interface Running extends ConnectionsOptions {
  work: Work;
  speed: Speed;
  additional: AdditionalConnections;
  opening: Opening;
  first: Segment;
  opened: PromiseWithResolvers<void>;
  ended: PromiseWithResolvers<void>;
}

/** The connection that every download has. It retries; the download fails only if this connection
 *  fails for good while no other one is running. */
async function runFirst(running: Running, first: Segment): Promise<void> {
  const { work } = running;
  const { segments, requests } = work;
  for (let segment: Segment | undefined = first; segment !== undefined; segment = nextSegment(work)) {
    segments.start(segment);
    try {
      await requests.persist(segment);
      segments.stop(segment);
    } catch (error) {
      segments.stop(segment);
      if (segments.active.size === 0 || !requests.isOpen()) fail(running, error);
      break;
    }
  }
  connectionEnded(running);
}

function opened({ opened, state, work, additional, first, opening }: Running): void {
  opened.resolve();
  state.notify();
  if (state.size !== undefined && work.requests.takesRanges()) additional.take(furtherSegments(first, state.size, opening));
}

function written({ state, work, additional }: Running): void {
  state.notify();
  if (work.requests.isWanted()) additional.takeHalf();
}

/** Ends the download after its last connection, unless parts are missing still. */
function connectionEnded(running: Running): void {
  const { state, sources, helpers, work, speed, additional, ended } = running;
  if (work.segments.active.size > 0) return;
  const missing = nextSegment(work);
  if (missing !== undefined) return void runFirst(running, missing);
  work.demands.close();
  const learned = additional.haveFailed() ? undefined : speed.pace(state.received);
  if (learned !== undefined && sources.current() === 'upstream') helpers.learn(learned);
  ended.resolve();
}

function fail({ opened, state }: Running, error: unknown): void {
  opened.reject(error);
  state.fail(error);
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

function openingOf({ state, sources, helpers, max, start, expectedSize }: ConnectionsOptions): Opening {
  const mayBeFaster = max > 1 && sources.current() === 'upstream' && state.size === undefined;
  return { start, expectedSize, max, pace: mayBeFaster ? helpers.pace() : undefined };
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
