import { raceAbort } from '../async/race-abort.ts';
import { OciError } from '../oci/error.ts';
import { resolveRange, type RangeRequest } from '../oci/range.ts';
import type { Blob, Body } from '../oci/registry.ts';
import { createDigestHash } from '../oci/digest.ts';
import { mapBody } from '../io/body.ts';
import type { BlobParts } from '../store/blob-parts.ts';
import { startConnections, type ConnectionsOptions } from './connections.ts';
import { startPassage, type Passage } from './passage.ts';
import type { SpoolContent } from './spool/progress.ts';
import { createReader } from './reader.ts';
import type { SourceList } from './source.ts';
import { createDownloadState, type DownloadStateOptions } from './state.ts';
import { WITHHELD_BYTES } from './withheld.ts';
import { readWithoutSpool } from './without-spool.ts';

export interface TransferOptions extends DownloadStateOptions, Omit<ConnectionsOptions, 'state'> {
  sources: SourceList;
  /** Where a blob goes that the spool has no room for. Undefined: there is no such place. */
  parts?: BlobParts | undefined;
}

/** How a download ended. `whole`: the spool has the verified blob. `in-parts`: the storage has the verified blob, in parts that `join`
 *  puts together. `streamed`: the spool was full, and readers continued without it. `corrupt`: the bytes do not match the digest. */
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
  /** By which a blob comes that the spool has no room for; its owner closes it before `close`. */
  passage(): Passage | undefined;
  /** Fails the transfer and all readers with `reason`. */
  abort(reason: unknown): void;
  /** The owner no longer needs the spool, which is then closed with its last reader. Call it once,
   *  after `outcome`. */
  close(): void;
}

export function startTransfer(options: TransferOptions): Transfer {
  const { digest, spool, sources, parts } = options;
  const state = createDownloadState(options);
  const connections = startConnections({ ...options, state });
  let passing: Passage | undefined;
  /** Whether there is a passage is decided once: when the source has told the size. */
  let isDecided = false;
  let corrupt = false;
  let readers = 0;
  let ownerDone = false;
  let closed = false;

  /** The passage of a blob that the spool has no room for. What the storage has itself needs none, and what another replica sends
   *  passes there. */
  function passage(): Passage | undefined {
    const { size } = state;
    if (isDecided || !state.isTooLarge || size === undefined || parts === undefined) return passing;
    isDecided = true;
    if (sources.current() !== 'upstream' || state.failure !== undefined) return undefined;
    passing = startPassage({ ...options, state, parts, size, rest });
    if (passing !== undefined) options.progress?.remove().catch(() => undefined); // its record would be of another file
    return passing;
  }

  function isSpoolFull(): boolean {
    return state.spoolFull && (passage()?.isAbandoned() ?? true);
  }

  async function conclude(): Promise<TransferOutcome> {
    await connections.ended;
    await passage()?.ended;
    try {
      if (state.failure === undefined && !isSpoolFull()) await verify();
    } catch (error) {
      state.fail(error);
    }
    await state.prefix.close();
    state.chunks.clear();
    state.notify();
    if (state.verified) return passing === undefined ? 'whole' : 'in-parts';
    return state.failure === undefined ? 'streamed' : corrupt ? 'corrupt' : 'failed';
  }

  async function verify(): Promise<void> {
    const prefix = passing ?? state.prefix;
    const right = await prefix.finish();
    state.signal.throwIfAborted();
    if (state.size === undefined || prefix.hashed() !== state.size) {
      throw new OciError('UNAVAILABLE', `${digest} arrived incomplete`, { origin: 'upstream' });
    }
    if (!right) {
      corrupt = true;
      throw new OciError('UNAVAILABLE', `the bytes from upstream do not match ${digest}; discarded them`, {
        origin: 'upstream',
        corrupt: true,
      });
    }
    state.verified = true;
    state.notify();
  }

  function closeWhenIdle(): void {
    if (readers > 0 || closed || !ownerDone) return;
    closed = true;
    spool.close().catch(() => undefined); // nothing is written any more, so nothing can be lost
  }

  /** The returned body counts as a reader, and keeps the spool open, until it is closed. */
  function follow(from: number, to: number | undefined, signal: AbortSignal): Body {
    readers++;
    const body = passage()?.follow(from, to ?? Infinity, signal) ?? createReader({ state, connections, from, to, rest }, signal);
    return mapBody(body, { onClose: left });
  }

  function left(): void {
    readers--;
    if (readers === 0 && state.size === undefined) {
      state.fail(new OciError('UNAVAILABLE', `no client waits for ${digest}, and upstream does not say where it ends`));
    }
    closeWhenIdle();
  }

  /** Continues without the spool, straight from the source. Hashed bytes are skipped only if this
   *  reader has them from the spool: the source may now send different bytes. */
  async function* rest(from: number, to: number | undefined, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const isUnseen = from < state.prefix.hashed() || closed || passing !== undefined;
    const seen = isUnseen ? { hash: createDigestHash(digest), hashed: 0 } : await state.prefix.again();
    const { size, maxSize } = state;
    yield* readWithoutSpool({ digest, sources, maxSize, size, from, to, hashed: seen.hashed, hash: seen.hash.copy() }, signal);
  }

  /** Waits until a blob that is too small to withhold a part of has been verified: wrong bytes then
   *  cause an error instead of a cut response. */
  async function settle(signal: AbortSignal): Promise<void> {
    while ((state.size ?? 0) <= WITHHELD_BYTES && !state.verified && !state.spoolFull && state.failure === undefined) {
      if (state.size === undefined && state.have.endFrom(0) > WITHHELD_BYTES) break;
      await raceAbort(state.changed(), signal);
    }
  }

  return {
    opened: connections.opened,
    outcome: conclude(),
    size: () => state.size,
    progress: () => ({ received: passing?.received() ?? state.have.total(), readers }),
    isSpoolFull,
    passage: () => passing,
    unfinished() {
      const { size, received, failure, spoolFull } = state;
      // A download without new bytes may have failed because of the file's content.
      if (size === undefined || received === 0 || failure === undefined || spoolFull || corrupt) return undefined;
      return { digest, size, ranges: state.have.ranges() };
    },
    spoolError: () => state.spoolError,
    failure: () => (state.failure === undefined ? undefined : corrupt || sources.hasWrongSize() ? 'corrupt' : 'failed'),
    abort: state.fail,
    close() {
      ownerDone = true;
      closeWhenIdle();
    },
    async read(range, signal) {
      await raceAbort(connections.opened, signal);
      await settle(signal);
      if (state.failure !== undefined) throw state.failure.error;
      if (closed && !isSpoolFull()) return undefined;
      const { size } = state;
      const resolved = range === undefined || size === undefined ? undefined : resolveRange(range, size);
      const from = resolved?.start ?? 0;
      const to = resolved === undefined ? size : resolved.end + 1;
      return { digest, size, range: resolved, body: closed ? rest(from, to, signal) : follow(from, to, signal) };
    },
  };
}
