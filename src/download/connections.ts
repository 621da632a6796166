import { setTimeout as delay } from 'node:timers/promises';
import { backoff } from '../async/backoff.ts';
import { isAbsent, isOciError, OciError } from '../oci/error.ts';
import { discardBody } from '../io/body.ts';
import type { Helpers } from './helpers.ts';
import { createSegment, createSegments, type Segment } from './segments.ts';
import type { SourceList } from './source.ts';
import { createSpeed } from './speed.ts';
import type { DownloadState } from './state.ts';
import { learnSize, rangeOf, receive } from './receive.ts';

/** How long readers' demands are gathered before connections are assigned to them, in ms. */
const GATHER_MS = 20;
/** How many failed attempts in a row, without a byte in between, a download survives. */
const MAX_FAILURES = 6;
/** A failure that comes later than this, in ms, is an outage: no time is left to ask for the whole blob instead of a range. */
const QUICK_FAILURE_MS = 5000;
/** How much of an upstream's Retry-After is honoured while readers wait, in seconds. */
const MAX_RETRY_AFTER_SECONDS = 10;

export interface ConnectionsOptions {
  state: DownloadState;
  sources: SourceList;
  helpers: Helpers;
  /** The maximum number of parallel connections. */
  max: number;
  /** Where the first request begins. */
  start: number;
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
  /** A reader waits for the byte at `position`. Readers that start together are assigned
   *  connections together: each part then ends where the next begins, so that requests are not cut
   *  later. */
  demand(reader: object, position: number): void;
  /** The reader no longer waits. */
  release(reader: object): void;
}

export function startConnections({ state, sources, helpers, max, start }: ConnectionsOptions): Connections {
  const segments = createSegments(state.have);
  const { active } = segments;
  const demands = new Map<object, number>();
  const opened = Promise.withResolvers<void>();
  const ended = Promise.withResolvers<void>();
  opened.promise.catch(() => undefined); // every reader gets the error; there may be none
  const speed = createSpeed();
  let ranges = true;
  const startedAt = performance.now();
  let isOpen = false;
  let assigning: NodeJS.Timeout | undefined;
  /** Failures in a row of the connection that every download has. */
  let failures = 0;
  const isWanted = () => !state.spoolFull && !state.verified && state.failure === undefined;

  /** Requests the rest of a segment once, and writes it to the spool. */
  async function transfer(segment: Segment, isHelper: boolean): Promise<void> {
    const requested = ranges ? rangeOf(segment, state) : undefined;
    const blob = await sources.open(requested, state.signal);
    await learnSize(state, blob);
    if (!isOpen) {
      isOpen = true;
      speed.opened();
      opened.resolve();
      state.notify();
    }
    if (requested !== undefined && blob.range === undefined) ranges = false;
    if (isHelper && blob.range === undefined) {
      await discardBody(blob.body);
      throw new OciError('UNAVAILABLE', 'upstream answers a range with the whole blob', { origin: 'upstream' });
    }
    if (blob.range === undefined && state.have.ranges().length === 0) segment.position = segment.reach = 0;
    segments.limit(state.size);
    await receive(state, { segment, blob, arrived: speed.arrived, written });
    segments.limit(state.size);
  }

  function written(): void {
    state.notify();
    if (isWanted()) recruit();
  }

  /** Downloads a segment, in as many requests as necessary. */
  async function bring(segment: Segment): Promise<void> {
    while (segment.position < segment.end && isWanted()) {
      const before = segment.position;
      try {
        await transfer(segment, false);
      } catch (error) {
        failures = segment.position > before ? 1 : failures + 1;
        const ranged = ranges && rangeOf(segment, state) !== undefined;
        if (state.signal.aborted || failures > MAX_FAILURES || isOciError(error, 'SIZE_INVALID')) throw error;
        if (isOpen ? isAbsent(error) && !ranged : !ranged || !mayBeRange(error, segment)) throw error;
        if (ranged && !isOpen) ranges = false;
        else await pause(error);
        // A refusal that is not an outage may concern the range: request the whole blob, and skip
        // the bytes that have arrived.
        if (ranged && isOciError(error) && !isOciError(error, 'UNAVAILABLE', 'TOOMANYREQUESTS')) ranges = false;
      }
    }
  }

  async function pause(error: unknown): Promise<void> {
    const asked = isOciError(error) ? 1000 * Math.min(error.retryAfter ?? 0, MAX_RETRY_AFTER_SECONDS) : 0;
    const milliseconds = Math.max(asked, backoff(failures, { baseMs: 100, capMs: 5000, jitter: 'full' }));
    await delay(milliseconds, undefined, { signal: state.signal });
  }

  /** Whether the first request, for a range, may have failed because of the range: the whole blob may be available. */
  function mayBeRange(error: unknown, { position }: Segment): boolean {
    if (!(error instanceof OciError)) return false;
    const { code, size } = error;
    if (code === 'RANGE_INVALID') return size === undefined || size > position;
    if (code === 'UNAVAILABLE') return performance.now() - startedAt < QUICK_FAILURE_MS;
    return code === 'DENIED' || code === 'UNSUPPORTED' || code === 'UNKNOWN';
  }

  /** The connection that every download has. It retries; the download fails only if this connection
   *  fails for good while no other one is running. */
  async function employ(first: Segment): Promise<void> {
    for (let segment: Segment | undefined = first; segment !== undefined; segment = nextSegment()) {
      segments.start(segment);
      try {
        await bring(segment);
        segments.stop(segment);
      } catch (error) {
        segments.stop(segment);
        if (active.size === 0 || !isOpen) fail(error);
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
        while (segment.position < segment.end && isWanted()) await transfer(segment, true);
        segments.stop(segment);
      } catch {
        segments.stop(segment);
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
    clearTimeout(assigning);
    ended.resolve();
  }

  /** From `start`, unless an earlier download has left a part of the blob. */
  function firstSegment(): Segment {
    const { size } = state;
    if (size === undefined) return createSegment(start, Infinity);
    const [gap] = [...state.have.gaps(start, size), ...state.have.gaps(0, size)];
    return gap === undefined ? createSegment(start, Infinity) : createSegment(...gap);
  }

  function fail(error: unknown): void {
    opened.reject(error);
    state.fail(error);
  }

  /** The next segment for an idle connection: one that a reader waits for, else the largest
   *  unassigned one. */
  function nextSegment(): Segment | undefined {
    if (state.size === undefined || !isWanted()) return undefined;
    for (const position of demands.values()) {
      const segment = segments.at(position, state.size);
      if (segment !== undefined) return segment;
    }
    return segments.largest(state.size);
  }

  /** Takes a helper for the second half of the largest segment, when that is worth it. */
  function recruit(): void {
    if (state.size === undefined || !ranges || active.size >= max || sources.current() === 'replica' || helpers.isBusy()) return;
    const worth = speed.worth(state.received, state.size - state.received, active.size);
    if (worth === undefined) return;
    const release = helpers.take();
    if (release === undefined) return;
    const half = segments.half(worth);
    if (half === undefined) return release();
    speed.hired(state.received, active.size);
    void help(half, release);
  }

  /** Assigns connections to the positions where readers wait. If only one connection is allowed, it
   *  moves there. */
  function assign(): void {
    assigning = undefined;
    const { size } = state;
    if (size === undefined || !ranges || !isWanted() || active.size === 0) return;
    // Readers no longer wait for bytes that have arrived in the meantime.
    const awaited = [...demands.values()].map((position) => state.have.endFrom(position)).filter((position) => position < size);
    const positions = [...new Set(awaited)].sort((one, other) => other - one);
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

  void employ(firstSegment());
  return {
    opened: opened.promise,
    ended: ended.promise,
    running: () => active.size > 0,
    demand(reader, position) {
      if (demands.get(reader) === position) return;
      demands.set(reader, position);
      assigning ??= setTimeout(assign, GATHER_MS);
    },
    release: (reader) => void demands.delete(reader),
  };
}
