import { setTimeout as delay } from 'node:timers/promises';
import { backoff } from '../async/backoff.ts';
import { discardBody } from '../io/body.ts';
import type { SharedBuffer } from '../io/buffers.ts';
import { isAbsent, isOciError, OciError } from '../oci/error.ts';
import type { ByteRange } from '../oci/range.ts';
import type { Blob } from '../oci/registry.ts';
import type { Segment, Segments } from './segments.ts';
import type { SourceList } from './source.ts';
import type { Speed } from './speed.ts';
import { createCoalescingWriter } from './spool/coalescing-writer.ts';
import type { DownloadState } from './state.ts';

/** How many failed attempts in a row, without a byte in between, a download tolerates. */
const MAX_FAILURES = 6;
/** A failure after more than this, in ms, is an outage: there is no time left to request the whole
 *  blob instead of a range. */
const QUICK_FAILURE_MS = 5000;
/** How much of an upstream's Retry-After is honoured while readers wait, in seconds. */
const MAX_RETRY_AFTER_SECONDS = 10;

export interface SegmentRequestsOptions {
  state: DownloadState;
  sources: SourceList;
  segments: Segments;
  speed: Speed;
  /** Called when the source has answered for the first time. */
  onOpen(this: void): void;
  /** Called after each write to the spool. */
  written(this: void): void;
}

/** The requests of one download for its segments. */
export interface SegmentRequests {
  /** Whether the source has answered. */
  isOpen(): boolean;
  /** Whether ranges may be requested, as far as known. */
  takesRanges(): boolean;
  /** Whether more bytes are wanted: the download has neither ended nor failed. */
  isWanted(this: void): boolean;
  /** Downloads a segment, in as many requests as necessary, and retries. @throws what the source
   *  throws for good */
  persist(segment: Segment): Promise<void>;
  /** Downloads a segment without retrying. @throws what the source throws; OciError UNAVAILABLE: it
   *  does not support ranges */
  attempt(segment: Segment): Promise<void>;
}

export function createSegmentRequests(options: SegmentRequestsOptions): SegmentRequests {
  const { state } = options;
  const source: AskedSource = { ...options, startedAt: performance.now(), takesRanges: true, isOpen: false, failures: 0 };
  const isWanted = () => !state.spoolFull && !state.verified && state.failure === undefined;
  return {
    isOpen: () => source.isOpen,
    takesRanges: () => source.takesRanges,
    isWanted,
    async persist(segment) {
      while (segment.position < segment.end && isWanted()) {
        const before = segment.position;
        try {
          await transfer(source, segment, { isHelper: false });
        } catch (error) {
          source.failures = segment.position > before ? 1 : source.failures + 1;
          await recover(source, segment, error);
        }
      }
    },
    async attempt(segment) {
      while (segment.position < segment.end && isWanted()) await transfer(source, segment, { isHelper: true });
    },
  };
}

/** The source of a download, as its answers have shown it. */
interface AskedSource extends SegmentRequestsOptions {
  startedAt: number;
  takesRanges: boolean;
  /** It has answered. */
  isOpen: boolean;
  /** Failures in a row of the connection that retries. */
  failures: number;
}

/** Requests the rest of a segment once, and writes it to the spool. */
async function transfer(source: AskedSource, segment: Segment, { isHelper }: { isHelper: boolean }): Promise<void> {
  const { state, sources, segments, speed, onOpen, written } = source;
  const requested = source.takesRanges ? rangeOf(segment, state) : undefined;
  const blob = await sources.open(requested, state.signal);
  await learnSize(state, blob);
  if (requested !== undefined && blob.range === undefined) source.takesRanges = false;
  if (!source.isOpen) {
    source.isOpen = true;
    speed.opened();
    onOpen();
  }
  if (isHelper && blob.range === undefined) {
    await discardBody(blob.body);
    throw new OciError('UNAVAILABLE', 'upstream answers a range with the whole blob', { origin: 'upstream' });
  }
  if (blob.range === undefined && state.have.ranges().length === 0) {
    segment.position = segment.reach = 0;
    segment.end = Infinity;
  }
  segments.limit(state.size);
  await receive(state, { segment, blob, speed, written });
  segments.limit(state.size);
}

/** Prepares another attempt after a failure. @throws the error, if there is none */
async function recover(source: AskedSource, segment: Segment, error: unknown): Promise<void> {
  const { state, isOpen, failures } = source;
  const ranged = source.takesRanges && rangeOf(segment, state) !== undefined;
  if (state.signal.aborted || failures > MAX_FAILURES || isOciError(error, 'SIZE_INVALID')) throw error;
  if (isOpen ? isAbsent(error) && !ranged : !ranged || !mayBeRange(source, segment, error)) throw error;
  if (ranged && !isOpen) source.takesRanges = false;
  else await pause(source, error);
  // A refusal that is not an outage may concern the range: request the whole blob, and skip the
  // bytes that have arrived.
  if (ranged && isOciError(error) && !isOciError(error, 'UNAVAILABLE', 'TOOMANYREQUESTS')) source.takesRanges = false;
}

async function pause({ failures, state }: AskedSource, error: unknown): Promise<void> {
  const asked = isOciError(error) ? 1000 * Math.min(error.retryAfter ?? 0, MAX_RETRY_AFTER_SECONDS) : 0;
  const milliseconds = Math.max(asked, backoff(failures, { baseMs: 100, capMs: 5000, jitter: 'full' }));
  await delay(milliseconds, undefined, { signal: state.signal });
}

/** Whether the first request, for a range, may have failed because of the range: the whole blob may
 *  be available. */
function mayBeRange({ startedAt }: AskedSource, { position }: Segment, error: unknown): boolean {
  if (!(error instanceof OciError)) return false;
  const { code, size } = error;
  if (code === 'RANGE_INVALID') return size === undefined || size > position;
  if (code === 'UNAVAILABLE') return position > 0 && performance.now() - startedAt < QUICK_FAILURE_MS;
  return code === 'DENIED' || code === 'UNSUPPORTED' || code === 'UNKNOWN';
}

/** The range to request for a segment; undefined: the whole blob. */
function rangeOf({ position, end }: Segment, { size = Infinity }: { size?: number | undefined }): ByteRange | undefined {
  if (position === 0 && end === size) return undefined;
  return end === Infinity ? { start: position } : { start: position, end: end - 1 };
}

/** Writes the bytes of a segment from `blob` to the spool, until the segment ends. `written` is
 *  called after each write.
 *  @throws OciError UNAVAILABLE (the answer ended early), SIZE_INVALID (the blob is too large);
 *  what the body throws */
async function receive(state: DownloadState, { segment, blob, speed, written }: Received): Promise<void> {
  const writer = createCoalescingWriter(segment.position, state.chunks, {
    write: (bytes, buffer) => writeSegment(state, segment, { bytes, buffer }),
    written,
  });
  let at = blob.range?.start ?? 0;
  try {
    for await (const chunk of blob.body) {
      const offset = at;
      at += chunk.length;
      speed.arrived(chunk.length);
      const from = writer.position();
      if (from >= segment.end || state.spoolFull) break;
      if (at <= from) continue;
      const useful = chunk.subarray(from - offset, Math.min(chunk.length, segment.end - offset));
      state.growTo(from + useful.length);
      if (!state.spoolFull) await writer.take(useful);
      if (state.spoolFull || from + useful.length >= segment.end) break;
    }
  } finally {
    await writer.end();
  }
  if (state.spoolFull) return;
  if (state.size === undefined) return state.learnSize(segment.position);
  const promised = (blob.range?.end ?? Infinity) + 1;
  if (segment.position < Math.min(segment.end, promised)) {
    throw new OciError('UNAVAILABLE', `upstream ended ${state.digest} early`, { origin: 'upstream' });
  }
}

interface Received {
  segment: Segment;
  blob: Blob;
  speed: Speed;
  written(this: void): void;
}

/** @returns how many of the bytes are in the spool: those that the segment still needs */
async function writeSegment(
  state: DownloadState,
  segment: Segment,
  { bytes, buffer }: { bytes: Uint8Array; buffer: SharedBuffer },
): Promise<number> {
  const from = segment.reach;
  const chunk = bytes.subarray(0, Math.max(0, segment.end - from));
  if (state.spoolFull || chunk.length === 0) return 0;
  segment.reach = from + chunk.length;
  if (!(await state.write(chunk, buffer, from)) || state.spoolFull) return 0;
  segment.position = from + chunk.length;
  return chunk.length;
}

/** Takes the blob's size from an answer, and closes the answer's body if it contradicts the known
 *  size.
 *  @throws OciError */
async function learnSize(state: DownloadState, blob: Blob): Promise<void> {
  try {
    if (blob.size !== undefined) state.learnSize(blob.size);
  } catch (error) {
    await discardBody(blob.body);
    throw error;
  }
}
