import { raceAbort } from '../async/race-abort.ts';
import type { RangeRequest } from '../oci/range.ts';
import type { Repository } from '../oci/reference.ts';
import type { Blob } from '../oci/registry.ts';
import type { BlobSource, SourceList, SourceName } from './source.ts';
import type { Transfer, TransferOutcome } from './transfer.ts';

export interface DownloadRequest {
  /** In order of preference. */
  sources: readonly BlobSource[];
  /** The repository that the blob is requested from, with the upstream's name in front. */
  repository: Repository;
  /** The upstream's name. */
  upstream: string;
  /** The maximum number of parallel connections. */
  connections: number;
  /** The size of the blob in bytes, if a manifest states it. */
  expectedSize: number | undefined;
  /** Where the first request begins. */
  start: number;
  /** None of its sources is a mirror or a replica: if its bytes are wrong, there is no other place
   *  to ask. */
  isLastResort: boolean;
  /** Whether it continues an earlier download, under whatever name that one ran. The response of
   *  the source then proves access; an untrusted source has to send every byte itself. */
  continues: boolean;
}

/** One download of one blob, which any number of readers may share (promise 2). */
export interface Download {
  /** The name under which it was started: its source serves the blob under that name. */
  readonly startedFor: Repository;
  /** The size, if known from the request. */
  readonly isLastResort: boolean;
  /** As `SourceList.located`. */
  readonly located: Promise<SourceName>;
  /** The current source. */
  source(): SourceName;
  /** How the download ended, and the size of the blob. Resolves before the blob is stored; never
   *  rejects. */
  readonly result: Promise<DownloadResult>;
  /** Waits for the download to start. False: it accepts no more readers, because its spool is full
   *  or it has failed. */
  isJoinable(signal: AbortSignal): Promise<boolean>;
  /** As `Transfer.read`. @throws OciError TOOMANYREQUESTS: too many downloads run */
  read(range: RangeRequest | undefined, signal: AbortSignal): Promise<Blob | undefined>;
  /** Undefined: it has not failed so far. */
  failure(): 'corrupt' | 'failed' | undefined;
  /** Bytes; undefined while it is unknown. */
  size(): number | undefined;
  /** Bytes that have arrived, and how many readers follow. */
  progress(): { received: number; readers: number };
}

export interface DownloadResult {
  outcome: TransferOutcome;
  size: number | undefined;
  /** Which sources have sent bytes. */
  used: ReadonlySet<SourceName>;
}

/** @param transfer rejects if the transfer could not begin */
export function createDownload(
  { repository, isLastResort }: DownloadRequest,
  { sources, transfer }: { sources: SourceList; transfer: Promise<Transfer> },
): Download {
  let begun: Transfer | undefined;
  transfer.then((it) => (begun = it)).catch(() => undefined); // its readers get the error
  const failed = { outcome: 'failed', size: undefined, used: sources.used } as const;
  return {
    startedFor: repository,
    isLastResort,
    located: sources.located,
    source: sources.current,
    result: transfer.then(
      async (it) => ({ outcome: await it.outcome, size: it.size(), used: sources.used }),
      () => failed,
    ),
    async isJoinable(signal) {
      try {
        const it = await raceAbort(transfer, signal);
        return !it.isSpoolFull() && it.failure() === undefined;
      } catch {
        signal.throwIfAborted();
        return false;
      }
    },
    async read(range, signal) {
      return (await raceAbort(transfer, signal)).read(range, signal);
    },
    failure: () => begun?.failure(),
    size: () => begun?.size(),
    progress: () => begun?.progress() ?? { received: 0, readers: 0 },
  };
}
