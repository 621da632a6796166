import { setTimeout as delay } from 'node:timers/promises';
import type { Log } from '../../telemetry/log.ts';
import type { Applier, Outcome } from './apply.ts';
import type { Redactor } from '../subscription/redact.ts';
import type { Inputs } from '../config/render.ts';
import { backoff } from '../../async/backoff.ts';
import { createSemaphore } from '../../async/semaphore.ts';

interface Change {
  /** Whose: a later change of the same source takes the place of one that waits. */
  source: string;
  change: (inputs: Inputs) => Inputs;
  applied(): Promise<void>;
  refused(problem: string): void;
}
/** Resolves when the change was tried. */
export type Offer = (change: Change) => Promise<void>;

export interface OffersOptions {
  applier: Applier;
  redactor: Redactor;
  log: Log;
  signal: AbortSignal;
  /** Told of every outcome but that nothing changed. */
  counted: (outcome: Outcome | 'failed') => void;
  /** Called after something was applied. */
  changed: () => void;
}

/** Milliseconds, doubled by each failure: while mihomo is away, and while nothing is reached. */
const FIRST_RETRY = { failed: 1000, unproven: 10_000 };
const LAST_RETRY = 600_000;

/** One change at a time. One that mihomo understands and that yet leads nowhere waits, and is tried again: it may have been the
 *  network. */
export function createOffers({ applier, redactor, log, signal, counted, changed }: OffersOptions): Offer {
  const waiting = new Map<string, Change>();
  const oneAtATime = createSemaphore(1);

  async function attempt(change: Change): Promise<Outcome | 'failed'> {
    const { source } = change;
    try {
      const outcome = await applier.change(change.change);
      if (outcome === 'applied' || outcome === 'unchanged') {
        waiting.delete(source);
        await change.applied();
        changed();
        if (outcome === 'applied') log.info({ source, proven: applier.proven() }, 'a changed config is in use');
      } else {
        const problem = applier.problem() ?? '';
        if (outcome === 'invalid') waiting.delete(source);
        change.refused(problem);
        log.error({ source }, `the change is not used: ${problem}`);
      }
      return outcome;
    } catch (error) {
      change.refused('mihomo does not answer');
      log.warn({ source, problem: redactor.clean((error as Error).message) }, 'a change cannot be applied now, and is tried again');
      return 'failed';
    }
  }

  async function insist(change: Change, why: keyof typeof FIRST_RETRY): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      const pause = backoff(attempt, { baseMs: FIRST_RETRY[why], capMs: LAST_RETRY });
      await delay(pause, undefined, { signal, ref: false }).catch(() => undefined); // stopped
      if (signal.aborted || waiting.get(change.source) !== change) return;
      const outcome = await inTurn(change);
      if (outcome !== 'unproven' && outcome !== 'failed') return;
    }
  }

  async function inTurn(change: Change): Promise<Outcome | 'failed'> {
    return oneAtATime.run(async () => {
      if (waiting.get(change.source) !== change) return 'invalid'; // a later change has taken its place
      const outcome = await attempt(change);
      if (outcome !== 'unchanged') counted(outcome);
      return outcome;
    });
  }

  return async (change) => {
    if (signal.aborted) return;
    waiting.set(change.source, change);
    const outcome = await inTurn(change);
    if (outcome === 'unproven' || outcome === 'failed') void insist(change, outcome);
  };
}
