import type { Repository } from '../oci/reference.ts';
import type { Log } from '../telemetry/log.ts';

/** Proves later, for one manifest after the other, that its repository may serve the blobs that are
 *  stored already. A node that has layers of other images requests only the rest of a new image.
 *  Without a proof, the registry could not serve those layers to the next node while the upstream
 *  is away. */
export interface LateProofs {
  note(this: void, repository: Repository, prove: Prove): void;
  close(this: void): void;
}

/** @throws OciError as `Proofs.requireStored` */
type Prove = (signal: AbortSignal) => Promise<void>;

export interface LateProofsOptions {
  /** The client that has requested the manifest requests most blobs that it needs within seconds,
   *  which proves them. */
  delayMs?: number;
  log: Log;
}

const DELAY_MS = 5000;
/** Manifests that wait; further ones are not noted. */
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
