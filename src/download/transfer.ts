import { raceAbort } from '../async/race-abort.ts';
import { OciError } from '../oci/error.ts';
import { resolveRange, type RangeRequest } from '../oci/range.ts';
import type { Blob, Body } from '../oci/registry.ts';
import { createDigestHash } from '../oci/digest.ts';
import { mapBody } from '../io/body.ts';
import type { BlobParts } from '../store/blob-parts.ts';
import { startConnections, type Connections, type ConnectionsOptions } from './connections.ts';
import { startPassage, type Passage } from './passage.ts';
import type { SpoolContent } from './spool/progress.ts';
import { createReader, type ReaderOptions } from './reader.ts';
import type { SourceList } from './source.ts';
import { createDownloadState, type DownloadState, type DownloadStateOptions } from './state.ts';
import { WITHHELD_BYTES } from './withheld.ts';
import { readWithoutSpool } from './without-spool.ts';

export interface TransferOptions extends DownloadStateOptions, Omit<ConnectionsOptions, 'state'> {
  sources: SourceList;
  /** Where a blob goes that the spool has no room for. Undefined: there is no such place. */
  parts?: BlobParts | undefined;
}

/** How a download ended. `whole`: the spool has the verified blob. `in-parts`: the storage has the
 *  verified blob, in parts that `join` puts together. `streamed`: the spool was full, and readers
 *  continued without it. `corrupt`: the bytes do not match the digest. */
export type TransferOutcome = 'whole' | 'in-parts' | 'streamed' | 'corrupt' | 'failed';

/** Downloads one blob into a spool file, over one or more connections, hashes it as its contiguous
 *  prefix grows, and serves any number of readers (promises 1 to 6). A transfer outlives its
 *  readers: only `abort` and failures end it early. A blob of unknown size may never end, so its
 *  transfer fails when its last reader leaves. */
export interface Transfer {
  /** Resolves when the source has answered; rejects as it does. */
  readonly opened: Promise<void>;
  /** Resolves when nothing is written any more; never rejects. The spool stays open for readers
   *  until `close`. */
  readonly outcome: Promise<TransferOutcome>;
  /** Reads at the reader's own pace. Undefined: the transfer has ended and been closed; read the
   *  stored blob instead.
   *  @throws the error that the transfer failed with; OciError RANGE_INVALID */
  read(range: RangeRequest | undefined, signal: AbortSignal): Promise<Blob | undefined>;
  /** How the transfer has failed; undefined: it has not, so far. */
  failure(): 'corrupt' | 'failed' | undefined;
  /** The spool accepts no more bytes: later readers should start a new download. */
  isSpoolFull(): boolean;
  /** Bytes, of the whole blob; undefined while it is unknown. */
  size(): number | undefined;
  /** Bytes in the spool, and how many readers follow. */
  progress(): { received: number; readers: number };
  /** The ranges that a failed transfer leaves in its spool for the next one. Undefined: none that
   *  are usable. */
  unfinished(): SpoolContent | undefined;
  /** The error of the spool file; undefined: it has not failed. */
  spoolError(): unknown;
  /** How a blob arrives that the spool has no room for; the owner closes it before `close`. */
  passage(): Passage | undefined;
  /** Fails the transfer and all readers with `reason`. */
  abort(reason: unknown): void;
  /** The owner no longer needs the spool, which is then closed with its last reader. Call it once,
   *  after `outcome`. */
  close(): void;
}

export function startTransfer(options: TransferOptions): Transfer {
  const state = createDownloadState(options);
  const connections = startConnections({ ...options, state });
  const running: Running = {
    options,
    state,
    connections,
    rest: (from, to, signal) => readRest(running, { from, to }, signal),
    passing: undefined,
    isPassageDecided: false,
    corrupt: false,
    readers: 0,
    ownerDone: false,
    closed: false,
  };
  return {
    opened: connections.opened,
    outcome: conclude(running),
    read: (range, signal) => read(running, range, signal),
    failure: () => failureOf(running),
    isSpoolFull: () => isSpoolFull(running),
    size: () => state.size,
    progress: () => ({ received: running.passing?.received() ?? state.have.total(), readers: running.readers }),
    unfinished: () => unfinishedOf(running),
    spoolError: () => state.spoolError,
    passage: () => running.passing,
    abort: state.fail,
    close() {
      running.ownerDone = true;
      closeWhenIdle(running);
    },
  };
}

interface Running {
  options: TransferOptions;
  state: DownloadState;
  connections: Connections;
  rest: ReaderOptions['rest'];
  passing: Passage | undefined;
  /** Whether there is a passage is decided once: when the source has told the size. */
  isPassageDecided: boolean;
  /** The bytes do not match the digest. */
  corrupt: boolean;
  readers: number;
  ownerDone: boolean;
  /** The spool is closed. */
  closed: boolean;
}

/** The passage of a blob that the spool has no room for. A blob from the storage needs none, and a
 *  blob from another replica is passed to the storage by that replica. */
function passageOf(running: Running): Passage | undefined {
  const { options, state } = running;
  const { parts, sources, progress } = options;
  const { size } = state;
  if (running.isPassageDecided || !state.isTooLarge || size === undefined || parts === undefined) return running.passing;
  running.isPassageDecided = true;
  if (sources.current() !== 'upstream' || state.failure !== undefined) return undefined;
  running.passing = startPassage({ ...options, state, parts, size, rest: running.rest });
  if (running.passing !== undefined) progress?.remove().catch(() => undefined); // its record would be of another file
  return running.passing;
}

function isSpoolFull(running: Running): boolean {
  return running.state.spoolFull && (passageOf(running)?.isAbandoned() ?? true);
}

async function conclude(running: Running): Promise<TransferOutcome> {
  const { state, connections } = running;
  await connections.ended;
  await passageOf(running)?.ended;
  try {
    if (state.failure === undefined && !isSpoolFull(running)) await verify(running);
  } catch (error) {
    state.fail(error);
  }
  await state.prefix.close();
  state.chunks.clear();
  state.notify();
  if (state.verified) return running.passing === undefined ? 'whole' : 'in-parts';
  return state.failure === undefined ? 'streamed' : running.corrupt ? 'corrupt' : 'failed';
}

/** @throws OciError UNAVAILABLE: the blob is incomplete, or its bytes are wrong */
async function verify(running: Running): Promise<void> {
  const { state, passing } = running;
  const { digest } = state;
  const prefix = passing ?? state.prefix;
  const right = await prefix.finish();
  state.signal.throwIfAborted();
  if (state.size === undefined || prefix.hashed() !== state.size) {
    throw new OciError('UNAVAILABLE', `${digest} arrived incomplete`, { origin: 'upstream' });
  }
  if (!right) {
    running.corrupt = true;
    throw new OciError('UNAVAILABLE', `the bytes from upstream do not match ${digest}; discarded them`, {
      origin: 'upstream',
      corrupt: true,
    });
  }
  state.verified = true;
  state.notify();
}

async function read(running: Running, range: RangeRequest | undefined, signal: AbortSignal): Promise<Blob | undefined> {
  const { state, connections } = running;
  await raceAbort(connections.opened, signal);
  await settle(state, signal);
  if (state.failure !== undefined) throw state.failure.error;
  if (running.closed && !isSpoolFull(running)) return undefined;
  const { digest, size } = state;
  const resolved = range === undefined || size === undefined ? undefined : resolveRange(range, size);
  const bounds = { from: resolved?.start ?? 0, to: resolved === undefined ? size : resolved.end + 1 };
  const body = running.closed ? readRest(running, bounds, signal) : follow(running, bounds, signal);
  return { digest, size, range: resolved, body };
}

/** Waits until a blob that is too small to withhold a part of has been verified: wrong bytes then
 *  cause an error instead of a cut response. */
async function settle(state: DownloadState, signal: AbortSignal): Promise<void> {
  while ((state.size ?? 0) <= WITHHELD_BYTES && !state.verified && !state.spoolFull && state.failure === undefined) {
    if (state.size === undefined && state.have.endFrom(0) > WITHHELD_BYTES) break;
    await raceAbort(state.changed(), signal);
  }
}

/** The part that a reader wants: [from, to); `to` is undefined while the size is unknown. */
interface Bounds {
  from: number;
  to: number | undefined;
}

/** The returned body counts as a reader, and keeps the spool open, until it is closed. */
function follow(running: Running, { from, to }: Bounds, signal: AbortSignal): Body {
  const { state, connections, rest } = running;
  running.readers++;
  const passing = passageOf(running);
  const body = passing?.follow(from, to ?? Infinity, signal) ?? createReader({ state, connections, from, to, rest }, signal);
  return mapBody(body, { onClose: () => left(running) });
}

/** A reader has left. */
function left(running: Running): void {
  const { state } = running;
  running.readers--;
  if (running.readers === 0 && state.size === undefined) {
    state.fail(new OciError('UNAVAILABLE', `no client waits for ${state.digest}, and upstream does not say where it ends`));
  }
  closeWhenIdle(running);
}

function closeWhenIdle(running: Running): void {
  const { readers, closed, ownerDone, state } = running;
  if (readers > 0 || closed || !ownerDone) return;
  running.closed = true;
  state.spool.close().catch(() => undefined); // nothing is written any more, so nothing can be lost
}

/** Continues without the spool, straight from the source. Hashed bytes are skipped only if this
 *  reader has them from the spool: the source may now send different bytes. */
async function* readRest(running: Running, { from, to }: Bounds, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const { state, passing, closed, options } = running;
  const { digest, size, maxSize, prefix } = state;
  const isUnseen = from < prefix.hashed() || closed || passing !== undefined;
  const seen = isUnseen ? { hash: createDigestHash(digest), hashed: 0 } : await prefix.again();
  const { sources } = options;
  yield* readWithoutSpool({ digest, sources, maxSize, size, from, to, hashed: seen.hashed, hash: seen.hash.copy() }, signal);
}

function failureOf({ state, options, corrupt }: Running): 'corrupt' | 'failed' | undefined {
  if (state.failure === undefined) return undefined;
  return corrupt || options.sources.hasWrongSize() ? 'corrupt' : 'failed';
}

function unfinishedOf({ state, corrupt, connections }: Running): SpoolContent | undefined {
  const { digest, size, received, failure, spoolFull } = state;
  if (size === undefined || failure === undefined || spoolFull || corrupt) return undefined;
  // A download without new bytes may have failed because of the file's content, unless the source
  // has never answered: it may have refused another repository.
  if (received === 0 && connections.hasOpened()) return undefined;
  return { digest, size, ranges: state.have.ranges() };
}
