import { createDemands } from './demands.ts';
import type { Helpers } from './helpers.ts';
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
  const demands = createDemands(state.have, assign);
  const requests = createSegmentRequests({ state, sources, segments, speed, onOpen, written });
  const { isWanted } = requests;
  const pace = max > 1 && sources.current() === 'upstream' && state.size === undefined ? helpers.pace() : undefined;
  const first = firstSegment();
  /** An additional connection has failed: if bytes came faster after it was taken, it was not the reason. */
  let helpFailed = false;

  /** The first part that an earlier download has not left; else the whole blob, unless several connections are known to be worth
   *  while: each then requests no more than it will bring. */
  function firstSegment(): Segment {
    const { size } = state;
    const [gap] = size === undefined ? [] : [...state.have.gaps(start, size), ...state.have.gaps(0, size)];
    if (gap !== undefined) return createSegment(...gap);
    if (pace === undefined) return createSegment(start, Infinity);
    if (expectedSize === undefined) return createSegment(start, start + worthwhile(pace));
    const left = expectedSize - start;
    const parts = partsAt(pace, { left, max });
    return createSegment(start, parts === 1 ? Infinity : start + Math.ceil(left / parts));
  }

  function onOpen(): void {
    opened.resolve();
    state.notify();
    if (pace === undefined || first.end === Infinity || state.size === undefined || !requests.takesRanges()) return;
    const left = state.size - first.end;
    const part = Math.ceil(left / partsAt(pace, { left, max: expectedSize === undefined ? max : max - 1 }));
    for (let from = first.end; from < state.size && active.size < max; from += part) {
      const release = helpers.take();
      if (release === undefined) return;
      void help(createSegment(from, Math.min(from + part, state.size)), release);
    }
  }

  function written(): void {
    state.notify();
    if (isWanted()) recruit();
  }

  /** The connection that every download has. It retries; the download fails only if this connection
   *  fails for good while no other one is running. */
  async function employ(first: Segment): Promise<void> {
    for (let segment: Segment | undefined = first; segment !== undefined; segment = nextSegment()) {
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
    if (active.size === 0) await conclude();
  }

  /** An additional connection. It can do no harm: at its first failure, its segment goes back to
   *  the others. */
  async function help(first: Segment, release: () => void): Promise<void> {
    for (let segment: Segment | undefined = first; segment !== undefined; segment = nextSegment()) {
      segments.start(segment);
      try {
        await requests.attempt(segment);
        segments.stop(segment);
      } catch {
        segments.stop(segment);
        helpFailed = true;
        if (!state.signal.aborted) helpers.discourage();
        break;
      }
    }
    release();
    if (active.size === 0) await conclude();
  }

  async function conclude(): Promise<void> {
    const missing = nextSegment();
    if (missing !== undefined) return employ(missing);
    demands.close();
    const learned = helpFailed ? undefined : speed.pace(state.received);
    if (learned !== undefined && sources.current() === 'upstream') helpers.learn(learned);
    ended.resolve();
  }

  function fail(error: unknown): void {
    opened.reject(error);
    state.fail(error);
  }

  /** The next segment for an idle connection: one that a reader waits for, else the largest
   *  unassigned one. */
  function nextSegment(): Segment | undefined {
    if (state.size === undefined || !isWanted()) return undefined;
    for (const position of demands.positions()) {
      const segment = segments.at(position, state.size);
      if (segment !== undefined) return segment;
    }
    return segments.largest(state.size);
  }

  /** Takes a helper for the second half of the largest segment, when that is worth it. */
  function recruit(): void {
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
    void help(half, release);
  }

  /** Assigns connections to the positions where readers wait. If only one connection is allowed, it
   *  moves there. */
  function assign(): void {
    const { size } = state;
    if (size === undefined || !requests.takesRanges() || !isWanted() || active.size === 0) return;
    const positions = demands.awaited(size);
    for (const position of positions) {
      if (active.size >= max) break;
      const release = helpers.take();
      if (release === undefined) break;
      const segment = segments.at(position, size);
      if (segment === undefined) release();
      else void help(segment, release);
    }
    const [only] = active;
    if (max > 1 || only === undefined || positions.length === 0) return;
    if (!positions.some(segments.isNear)) only.end = only.reach;
  }

  void employ(first);
  return {
    opened: opened.promise,
    ended: ended.promise,
    running: () => active.size > 0,
    demand: demands.demand,
    release: demands.release,
  };
}
