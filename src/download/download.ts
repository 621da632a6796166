import type { FileHandle } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { createDigestHash, type Digest } from '../oci/digest.ts';
import { isAbsent, isOciError, OciError } from '../oci/error.ts';
import { resolveRange, type RangeRequest } from '../oci/range.ts';
import type { Blob, Body } from '../oci/registry.ts';
import type { SharedBuffer } from '../io/buffers.ts';
import { createReader } from './reader.ts';
import { createInlet } from './spool/coalescing-writer.ts';
import { createIntervals } from './spool/byte-ranges.ts';
import { createParts, NEAR, type Worker } from './segments.ts';
import { createPrefix } from './spool/prefix-hash.ts';
import { raceAbort } from '../async/race-abort.ts';
import { WITHHELD, type FillSource } from './source.ts';
import { unspooled } from './without-spool.ts';
import { createWindows } from './spool/recent-chunks.ts';
import { backoff } from '../async/backoff.ts';

/** A helper's smallest worthwhile part, in bytes: serial 4 MiB segments were measured to cost 1.8 times one stream. */
const MIN_SEGMENT = 4 * 1024 * 1024;
/** How long readers' wishes are gathered before connections are given to them, in ms. */
const GATHER = 20;
/** How long the speed of a download is measured before another connection is taken, in ms beside two round trips. */
const MEASURED = 80;
/** What the wait for the first headers counts for at most, in ms: it may hold a handshake, a token, or a stall. */
const MAX_ROUND_TRIP = 300;
/** How long none is taken after one that brought less than half of its share, in ms. */
const DISCOURAGED = 2000;
/** Failed attempts in a row, none of which brought a byte, after which a fill gives up. */
const MAX_FAILURES = 6;
/** What of an upstream's Retry-After is heeded while readers wait, in seconds. */
const MAX_RETRY_AFTER = 10;

export interface FillOptions {
  digest: Digest;
  source: FillSource;
  /** An empty file, open for reading and writing; the fill closes it when its last reader has left. */
  spool: FileHandle;
  /** Parallel connections at most. */
  connections: number;
  /** Bytes; a larger blob is refused. */
  maxSize: number;
  /** Asks for one more connection of those that all fills share; undefined: none is left. */
  takeConnection(): (() => void) | undefined;
  /** One connection brings all that there is to be had: no helpers are taken for speed. */
  alone(): boolean;
  /** Asks for room for that many more bytes in all; false: there is none, and readers go on without the spool. */
  reserve(total: number): boolean;
  /** The bytes are whole and right: keep them. A rejection is the keeper's to log; readers do not notice. */
  keep(size: number): Promise<void>;
  /** The bytes are whole and wrong. */
  corrupt(): void;
  /** The spool takes no more; readers go on without it. */
  spoolFailed(error: unknown): void;
  /** Where a reader waits that starts the fill: the first request begins there. */
  start: number;
}

export interface Fill {
  /** Resolves when the source has answered; rejects as it does. */
  readonly opened: Promise<void>;
  /** Resolves, never rejects, when the fill has ended either way and its result is kept. */
  readonly ended: Promise<void>;
  /** Follows the fill at the reader's own pace; undefined: it has ended, and its last reader has left: what it kept is to be read
   *  instead. @throws what the fill failed with; RANGE_INVALID */
  open(range: RangeRequest | undefined, signal: AbortSignal): Promise<Blob | undefined>;
  /** Stops it: readers fail with `reason`. */
  abort(reason: unknown): void;
  /** Bytes, of the whole blob; undefined while nobody knows. */
  size(): number | undefined;
  /** No more bytes go to the spool: later readers are better off elsewhere. */
  overflowed(): boolean;
  /** It has failed, and all who wait for it hear why: who comes later should try anew. */
  failed(): boolean;
}

/** One blob's way into a spool file, over one connection or several, hashed as its contiguous prefix grows, and followed by any
 *  number of readers (promises 1 to 6). It outlives them: only `abort` and failures end it early, and, while nobody knows how
 *  large the blob is, that its last reader leaves: such a body may never end. */
export function startFill(options: FillOptions): Fill {
  const { digest, spool } = options;
  const stop = new AbortController();
  const have = createIntervals();
  const windows = createWindows();
  const workers = new Set<Worker>();
  const parts = createParts(have, workers);
  const demands = new Map<object, number>();
  const prefix = createPrefix({
    digest,
    spool,
    have,
    size: () => size,
    unwanted: () => overflow,
    failed: (error) => stop.abort(error),
  });
  const opened = Promise.withResolvers<void>();
  const ended = Promise.withResolvers<void>();
  opened.promise.catch(() => undefined); // who asks is told; nobody may ask
  let size: number | undefined;
  let ranges = true;
  let verified = false;
  let overflow = false;
  let failure: { error: unknown } | undefined;
  let readers = 0;
  let closed = false;
  let concluded = false;
  let wake = Promise.withResolvers<void>();
  const startedAt = performance.now();
  let headersAt = 0;
  let received = 0;
  /** When the last connection was taken, what had come by then, and how fast: bytes a millisecond, of all `workers` together. */
  let last: { at: number; received: number; rate: number; workers: number } | undefined;
  let assigning: NodeJS.Timeout | undefined;

  function progress(): void {
    wake.resolve();
    wake = Promise.withResolvers<void>();
  }

  function learnSize(total: number): void {
    if (size === total) return;
    if (size !== undefined)
      throw new OciError('UNAVAILABLE', `upstream changed its mind about the size of ${digest}`, { origin: 'upstream' });
    if (total > options.maxSize) {
      throw new OciError('SIZE_INVALID', `${digest} has ${total} bytes, more than the ${options.maxSize} that are allowed`, {
        origin: 'upstream',
      });
    }
    size = total;
    if (!options.reserve(total)) overflow = true;
    for (const worker of workers) worker.end = Math.min(worker.end, total);
  }

  /** Brings what lies between the worker's position and its end, over as many requests as it takes. */
  async function work(worker: Worker): Promise<void> {
    let failures = 0;
    while (worker.position < worker.end && !verified && !overflow) {
      const before = worker.position;
      try {
        await transfer(worker);
      } catch (error) {
        if (stop.signal.aborted || headersAt === 0 || isAbsent(error) || isOciError(error, 'SIZE_INVALID')) throw error;
        failures = worker.position > before ? 1 : failures + 1;
        if (failures > MAX_FAILURES) throw error;
        const asked = isOciError(error) ? 1000 * Math.min(error.retryAfter ?? 0, MAX_RETRY_AFTER) : 0;
        await delay(Math.max(asked, backoff(failures, { baseMs: 100, capMs: 5000, jitter: 'full' })), undefined, { signal: stop.signal });
      }
    }
  }

  async function transfer(worker: Worker): Promise<void> {
    const whole = worker.position === 0 && worker.end === (size ?? Infinity);
    const asked = whole ? undefined : { start: worker.position, ...(worker.end === Infinity ? {} : { end: worker.end - 1 }) };
    const blob = await options.source(asked, stop.signal);
    try {
      if (blob.size !== undefined) learnSize(blob.size);
    } catch (error) {
      await blob.body[Symbol.asyncIterator]().return?.();
      throw error;
    }
    if (headersAt === 0) {
      headersAt = performance.now();
      opened.resolve();
      progress();
    }
    if (asked !== undefined && blob.range === undefined) {
      ranges = false;
      // Another connection brings it from the beginning already; or this one must, skipping what is there.
      if ([...workers].some((other) => other !== worker && other.position <= worker.position && other.end >= worker.position)) {
        for (const other of workers) if (other !== worker && other.end === worker.position) other.end = worker.end;
        worker.end = worker.position;
        await blob.body[Symbol.asyncIterator]().return?.();
        return;
      }
      if (received === 0) worker.position = worker.reach = 0;
    }
    await receive(worker, blob);
    if (overflow) return;
    if (size === undefined) learnSize(worker.position);
    else if (worker.position < worker.end) throw new OciError('UNAVAILABLE', `upstream ended ${digest} early`, { origin: 'upstream' });
  }

  async function receive(worker: Worker, blob: Blob): Promise<void> {
    const inlet = createInlet(worker.position, windows, { write: (bytes, buffer) => append(worker, bytes, buffer), written: progress });
    let at = blob.range?.start ?? 0;
    try {
      for await (const chunk of blob.body) {
        const offset = at;
        at += chunk.length;
        const from = inlet.position();
        if (from >= worker.end || overflow) break;
        if (at <= from) continue;
        const useful = chunk.subarray(from - offset, Math.min(chunk.length, worker.end - offset));
        const end = from + useful.length;
        if (end > options.maxSize) {
          throw new OciError('SIZE_INVALID', `${digest} has more than the ${options.maxSize} bytes that are allowed`, {
            origin: 'upstream',
          });
        }
        if (size === undefined && !options.reserve(end)) overflow = true;
        if (!overflow) await inlet.take(useful);
        if (overflow || end >= worker.end) break;
      }
    } finally {
      await inlet.end();
    }
  }

  /** @returns how many of the bytes are in the spool: those that the worker is still to bring */
  async function append(worker: Worker, bytes: Uint8Array, buffer: SharedBuffer): Promise<number> {
    const from = worker.position;
    const chunk = bytes.subarray(0, Math.max(0, worker.end - from));
    if (overflow || chunk.length === 0) return 0;
    worker.reach = from + chunk.length;
    try {
      await prefix.write(chunk, buffer, from);
    } catch (error) {
      // Full, or broken: upstream is not, so nobody has to fail. What is not in the spool is fetched again.
      if (!overflow) options.spoolFailed(error);
      overflow = true;
      progress();
      return 0;
    }
    worker.position = from + chunk.length;
    received += chunk.length;
    have.add(from, worker.position);
    prefix.grown();
    recruit();
    return chunk.length;
  }

  /** Takes another connection for the tail of the largest part that is still to come, when that is worth it, and when the one before
   *  was: where the line is full, another only costs what is on its way to the connection that is cut for it. */
  function recruit(): void {
    if (size === undefined || !ranges || overflow || options.alone() || workers.size >= options.connections) return;
    const now = performance.now();
    const roundTrip = Math.min(headersAt - startedAt, MAX_ROUND_TRIP);
    const since = now - (last?.at ?? headersAt);
    if (since < MEASURED + 2 * roundTrip) return;
    const rate = (received - (last?.received ?? 0)) / since;
    const paid = last === undefined || rate >= last.rate * (1 + 0.5 / last.workers);
    if (!paid && since < DISCOURAGED) return;
    const worth = Math.max(MIN_SEGMENT, (Math.max(10 * roundTrip, 100) * rate) / workers.size);
    const largest = [...workers].reduce((most, worker) => (worker.end - worker.position > most.end - most.position ? worker : most));
    const middle = Math.floor((largest.position + largest.end) / 2);
    if (middle - largest.position < worth) return;
    const before = { at: now, received, rate, workers: workers.size };
    if (!hire({ position: middle, reach: middle, end: largest.end })) return;
    largest.end = middle;
    last = before;
  }

  /** Puts a connection to work beside the others; false: there is none to spare. */
  function hire(worker: Worker): boolean {
    const release = options.takeConnection();
    if (release === undefined) return false;
    void employ(worker, release);
    return true;
  }

  async function employ(worker: Worker, release: () => void): Promise<void> {
    let current: Worker | undefined = worker;
    workers.add(worker);
    try {
      while (current !== undefined && !overflow) {
        await work(current);
        workers.delete(current);
        current = nextPart();
        if (current !== undefined) workers.add(current);
      }
    } catch (error) {
      fail(error);
    } finally {
      if (current !== undefined) workers.delete(current);
      release();
    }
    if (workers.size === 0) await conclude();
  }

  /** What a connection that has nothing to do should bring: what a reader waits for, else what nobody brings yet. */
  function nextPart(): Worker | undefined {
    if (size === undefined || failure !== undefined || overflow) return undefined;
    for (const position of demands.values()) {
      const part = parts.at(position, size);
      if (part !== undefined) return part;
    }
    return parts.largest(size);
  }

  /** A reader waits at `position`. Readers that start together are given connections together: each part then ends where the
   *  next begins, and no request is cut that could have been shorter. */
  function demand(reader: object, position: number): void {
    if (demands.get(reader) === position) return;
    demands.set(reader, position);
    assigning ??= setTimeout(assign, GATHER);
  }

  /** Connections go where readers wait, or the only one that there is turns there. */
  function assign(): void {
    assigning = undefined;
    const total = size;
    if (total === undefined || !ranges || overflow || workers.size === 0) return;
    // What came in the meantime is awaited no more.
    const awaited = [...demands.values()].map((position) => have.endFrom(position)).filter((position) => position < total);
    const positions = [...new Set(awaited)].sort((one, other) => other - one);
    for (const position of positions) {
      if (workers.size >= options.connections) break;
      const ends = new Map([...workers].map((worker) => [worker, worker.end]));
      const part = parts.at(position, total);
      if (part !== undefined && !hire(part)) for (const [worker, end] of ends) worker.end = end;
    }
    const [only] = workers;
    if (options.connections > 1 || only === undefined || positions.length === 0) return;
    const near = (position: number) => only.position <= position && position - only.position < NEAR;
    if (!positions.some(near)) only.end = only.reach;
  }

  async function finish(): Promise<void> {
    const right = await prefix.finish();
    stop.signal.throwIfAborted();
    if (size === undefined || prefix.hashed() !== size) {
      throw new OciError('UNAVAILABLE', `${digest} came incomplete`, { origin: 'upstream' });
    }
    if (!right) {
      options.corrupt();
      throw new OciError('UNAVAILABLE', `what upstream sent for ${digest} has another digest; nothing of it was kept`, {
        origin: 'upstream',
      });
    }
    verified = true;
    progress();
    await options.keep(size);
  }

  async function conclude(): Promise<void> {
    try {
      if (failure === undefined && !overflow) await finish();
    } catch (error) {
      fail(error);
    }
    await prefix.close();
    concluded = true;
    windows.clear();
    clearTimeout(assigning);
    progress();
    closeWhenIdle();
    ended.resolve();
  }

  function fail(error: unknown): void {
    failure ??= { error };
    opened.reject(error);
    stop.abort(error);
    progress();
  }

  /** How far a reader may read from `position` now. */
  function readable(position: number): number {
    const end = have.endFrom(position);
    if (verified) return end;
    // While the size is unknown, the end may be here: the last bytes that came are held back.
    return Math.min(end, (size ?? end) - WITHHELD);
  }

  /** Counts as a reader from now until the body is closed: the spool stays open that long. */
  function attend(from: number, to: number | undefined, signal: AbortSignal): Body {
    const self = {};
    const end = () => to ?? (verified ? size : undefined);
    readers++;
    const options = {
      spool,
      windows,
      from,
      end,
      async reach(position: number) {
        for (;;) {
          signal.throwIfAborted();
          const last = end() ?? Infinity;
          if (position >= last) return undefined;
          const limit = Math.min(readable(position), last);
          if (limit > position) return limit;
          if (failure !== undefined) throw failure.error;
          if (overflow && workers.size === 0) return undefined;
          const changed = wake.promise;
          demand(self, Math.max(position, have.endFrom(position)));
          await changed;
        }
      },
      beyond: (position: number) => past(position, end(), signal),
      closed() {
        demands.delete(self);
        progress();
        readers--;
        if (readers === 0 && size === undefined)
          fail(new OciError('UNAVAILABLE', `nobody waits for ${digest}, and upstream does not say where it ends`));
        closeWhenIdle();
      },
    };
    return createReader(options, signal);
  }

  /** Goes on without the spool: straight from the source, the last bytes held back as ever. What was hashed is passed over only where
   *  this reader has it from the spool: what it gets now may be something else. */
  async function* past(from: number, to: number | undefined, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const nothing = { hash: createDigestHash(digest), hashed: 0 };
    const seen = from < prefix.hashed() || closed ? nothing : await prefix.again();
    yield* unspooled({ digest, source: options.source, maxSize: options.maxSize, size, from, to, ...seen, hash: seen.hash.copy() }, signal);
  }

  function closeWhenIdle(): void {
    if (readers > 0 || closed || !concluded) return;
    closed = true;
    spool.close().catch(() => undefined); // nothing is written any more, so nothing can be lost
  }

  void employ({ position: options.start, reach: options.start, end: Infinity }, () => undefined);

  return {
    opened: opened.promise,
    ended: ended.promise,
    size: () => size,
    overflowed: () => overflow,
    failed: () => failure !== undefined,
    abort: fail,

    async open(range, signal) {
      await raceAbort(opened.promise, signal);
      // Too small to withhold a part of: all of it waits, and a wrong one is an error instead of a cut line.
      while ((size ?? 0) <= WITHHELD && !verified && !overflow && failure === undefined) {
        if (size === undefined && have.endFrom(0) > WITHHELD) break;
        await raceAbort(wake.promise, signal);
      }
      if (failure !== undefined) throw failure.error;
      if (closed && !overflow) return undefined;
      const asked = range === undefined || size === undefined ? undefined : resolveRange(range, size);
      const from = asked?.start ?? 0;
      const to = asked === undefined ? size : asked.end + 1;
      return { digest, size, range: asked, body: closed ? past(from, to, signal) : attend(from, to, signal) };
    },
  };
}
