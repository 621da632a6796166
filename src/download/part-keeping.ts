import type { Digest } from '../oci/digest.ts';
import type { BlobParts } from '../store/blob-parts.ts';
import type { Log } from '../telemetry/log.ts';
import { createCheckpoints, WORTH_PARTS } from './checkpoints.ts';
import type { DownloadRequest } from './download.ts';
import { restoreParts, type PartFinder } from './restore.ts';
import type { SourceList } from './source.ts';
import type { SpoolContent, SpoolProgress } from './spool/progress.ts';
import type { SpoolFile } from './spool/spool-file.ts';
import type { Reservation } from './state.ts';
import type { Transfer, TransferOutcome } from './transfer.ts';

/** Keeps the parts of one download in the storage. */
export interface PartKeeper {
  /** What its spool file holds at the start. */
  content: SpoolContent | undefined;
  progress: Pick<SpoolProgress, 'written' | 'remove'>;
  /** Call it when the transfer has ended, before its blob is stored. Puts the blob together from
   *  its parts, if there are any.
   *  @returns whether the storage has the blob */
  finish(this: void, transfer: Transfer, outcome: TransferOutcome): Promise<boolean>;
}

interface PartKeeperOptions {
  parts: BlobParts;
  finder: PartFinder;
  file: SpoolFile;
  room: Reservation;
  sources: SourceList;
  log: Log;
}

/** How long joining and removing parts may take, in ms: some storages copy every byte. */
const FINISH_TIMEOUT_MS = 3_600_000;
/** The same for a blob that is on this machine as a whole, and can be uploaded from here. */
const WHOLE_TIMEOUT_MS = 120_000;

export async function createPartKeeper(digest: Digest, request: DownloadRequest, options: PartKeeperOptions): Promise<PartKeeper> {
  const { parts, finder, file, room, sources, log } = options;
  const { content, progress, handle } = file;
  const { expectedSize = WORTH_PARTS, continues } = request;
  const mayRestore = content === undefined && file.failure === undefined && continues && expectedSize >= WORTH_PARTS;
  const hasParts = mayRestore && (await finder.mayHave(digest));
  const restored = hasParts ? await restoreParts({ parts, digest, expectedSize: request.expectedSize, file: handle, room }) : undefined;
  const checkpoints = createCheckpoints({ parts, digest, file: handle, sources });

  async function join(transfer: Transfer, outcome: TransferOutcome): Promise<boolean> {
    try {
      if (outcome === 'whole') return await checkpoints.finish(AbortSignal.timeout(WHOLE_TIMEOUT_MS));
      if (outcome !== 'in-parts') return false;
      await transfer.passage()?.join(AbortSignal.timeout(FINISH_TIMEOUT_MS));
      return true;
    } catch (error) {
      log.error({ event: 'parts-not-joined', digest, error }, 'the storage has the parts of a blob, but cannot join them');
      return false;
    }
  }

  /** Pruning removes what is left. */
  function clear(): void {
    parts.clear(digest, { signal: AbortSignal.timeout(FINISH_TIMEOUT_MS) }).catch((error: unknown) => {
      log.warn({ event: 'parts-left', digest, error }, 'cannot remove the parts of a blob from the storage; pruning removes them');
    });
  }

  return {
    content: content ?? restored,
    progress: {
      written(bytes, size, have) {
        progress.written(bytes, size, have);
        checkpoints.written(bytes, size, have);
      },
      remove: progress.remove,
    },
    async finish(transfer, outcome) {
      const refusal = transfer.passage()?.refusal();
      if (refusal !== undefined) {
        log.error(
          { event: 'parts-refused', digest, error: refusal },
          'the storage takes no parts of a blob: streaming it without caching it',
        );
      }
      const isJoined = await join(transfer, outcome);
      await Promise.all([checkpoints.stop(), transfer.passage()?.close()]);
      const isOver = outcome === 'whole' || outcome === 'corrupt' || isJoined;
      if (isOver && (sources.current() === 'upstream' || hasParts) && (transfer.size() ?? 0) >= WORTH_PARTS) clear();
      return isJoined;
    },
  };
}
