import type { Repository } from '../oci/reference.ts';
import type { Log } from '../telemetry/log.ts';

/** Proves afterwards, one manifest at a time, that its repository may serve the blobs that are
 *  stored already. A node that has some layers of a new image from other images requests only the
 *  other layers. Without a proof, the registry could not serve the layers that were not requested
 *  to the next node while the upstream does not answer. */
export interface LateProofs {
  note(this: void, repository: Repository, prove: Prove): void;
  close(this: void): void;
}

/** @throws OciError as `Proofs.requireStored` */
type Prove = (signal: AbortSignal) => Promise<void>;

export interface LateProofsOptions {
  /** How long to wait after the manifest: most blobs that its client needs are requested within
   *  seconds, and are then proved anyway. */
  delayMs?: number;
  log: Log;
}

const DELAY_MS = 5000;
/** How many manifests may wait; further ones are ignored. */
const MAX_WAITING = 1000;

export function createLateProofs({ delayMs = DELAY_MS, log }: LateProofsOptions): LateProofs {
  const waiting: { repository: Repository; prove: Prove; due: number }[] = [];
  const closing = new AbortController();
  let timer: NodeJS.Timeout | undefined;

  async function work(): Promise<void> {
    const [next] = waiting;
    if (next === undefined || closing.signal.aborted) return;
    const { repository, prove } = next;
    await prove(closing.signal).catch((error: unknown) => {
      if (closing.signal.aborted) return;
      log.debug({ event: 'late-proof-failed', repository, error }, 'cannot prove access to shared blobs of an image now');
    });
    waiting.shift();
    schedule();
  }

  function schedule(): void {
    const [next] = waiting;
    if (next !== undefined) timer = setTimeout(() => void work(), Math.max(0, next.due - performance.now())).unref();
  }

  return {
    note(repository, prove) {
      if (waiting.length >= MAX_WAITING || closing.signal.aborted) return;
      waiting.push({ repository, prove, due: performance.now() + delayMs });
      if (waiting.length === 1) schedule();
    },
    close() {
      closing.abort();
      clearTimeout(timer);
    },
  };
}
