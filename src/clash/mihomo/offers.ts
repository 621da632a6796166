import { backoff } from '../../async/backoff.ts';
import { raceAbort } from '../../async/race-abort.ts';
import type { Log } from '../../telemetry/log.ts';
import type { Inputs } from '../config/render.ts';
import type { Redactor } from '../subscription/redact.ts';
import type { Applier, Outcome } from './apply.ts';

export interface Change {
  /** A later change of the same source replaces one that waits. */
  source: string;
  change: (inputs: Inputs) => Inputs;
  applied(): Promise<void>;
  refused(problem: string): void;
}

/** Requests a change. Resolves when it has been tried. */
export type Offer = (change: Change) => Promise<void>;

export interface OffersOptions {
  applier: Pick<Applier, 'change' | 'problem' | 'proven'>;
  redactor: Redactor;
  log: Log;
  signal: AbortSignal;
  /** Called with every outcome but `unchanged`. */
  counted: (outcome: Outcome | 'failed') => void;
  /** Called after something was applied. */
  changed: () => void;
}

interface Waiting {
  change: Change;
  /** Resolves when it has been tried, or replaced by a later change of its source. */
  tried: PromiseWithResolvers<void>;
  /** How often it failed. */
  failures: number;
  /** Not before this time, in ms since 1970. */
  notBefore: number;
}

/** Retries while mihomo does not answer or no request gets through: the network may have failed. */
const RETRY = { failed: { baseMs: 1000, capMs: 600_000 }, unproven: { baseMs: 10_000, capMs: 600_000 } };
/** Changes that arrive together, as at the start, become one config. */
const GATHER_MS = 50;

/** Tries all waiting changes in one config. If that is refused, it tries them one by one, so that a
 *  bad change stops no other. A config that mihomo accepts but that passes no request is tried
 *  again later. */
export function createOffers({ applier, redactor, log, signal, counted, changed }: OffersOptions): Offer {
  const waiting = new Map<string, Waiting>();
  let working = false;
  let timer: NodeJS.Timeout | undefined;

  async function attempt(batch: readonly Waiting[]): Promise<Outcome | 'failed'> {
    try {
      return await applier.change((inputs) => batch.reduce((before, { change }) => change.change(before), inputs));
    } catch (error) {
      const problem = redactor.clean((error as Error).message);
      log.warn({ event: 'clash-change-failed', sources: sourcesOf(batch), problem }, 'cannot apply a config change; will retry');
      return 'failed';
    }
  }

  function keepForRetry(own: Waiting, why: keyof typeof RETRY): void {
    own.notBefore = Date.now() + backoff(own.failures++, RETRY[why]);
    if (!waiting.has(own.change.source)) waiting.set(own.change.source, own);
  }

  async function conclude(batch: readonly Waiting[], outcome: Outcome | 'failed'): Promise<void> {
    if (outcome !== 'unchanged') counted(outcome);
    if (outcome === 'applied' || outcome === 'unchanged') {
      for (const { change } of batch) await change.applied();
      changed();
      const proven = applier.proven();
      if (outcome === 'applied')
        log.info({ event: 'clash-config-applied', sources: sourcesOf(batch), proven }, 'a changed config is in use');
    } else {
      const problem = outcome === 'failed' ? 'mihomo does not answer' : (applier.problem() ?? '');
      for (const own of batch) {
        own.change.refused(problem);
        if (outcome !== 'invalid') keepForRetry(own, outcome);
      }
      if (outcome !== 'failed')
        log.error({ event: 'clash-change-refused', sources: sourcesOf(batch), outcome }, `rejected a config change: ${problem}`);
    }
    for (const { tried } of batch) tried.resolve();
  }

  async function work(): Promise<void> {
    working = true;
    for (let batch = takeDue(); batch.length > 0 && !signal.aborted; batch = takeDue()) {
      const outcome = await attempt(batch);
      if (batch.length === 1 || (outcome !== 'invalid' && outcome !== 'unproven')) await conclude(batch, outcome);
      else for (const own of batch) await conclude([own], await attempt([own]));
    }
    working = false;
    plan();
  }

  function takeDue(): Waiting[] {
    const due = [...waiting.values()].filter(({ notBefore }) => notBefore <= Date.now());
    for (const { change } of due) waiting.delete(change.source);
    return due;
  }

  function plan(): void {
    clearTimeout(timer);
    if (working || signal.aborted || waiting.size === 0) return;
    const next = Math.min(...[...waiting.values()].map(({ notBefore }) => notBefore));
    timer = setTimeout(() => void work(), Math.max(0, next - Date.now())).unref();
  }

  return async (change) => {
    if (signal.aborted) return;
    waiting.get(change.source)?.tried.resolve();
    const tried = Promise.withResolvers<void>();
    waiting.set(change.source, { change, tried, failures: 0, notBefore: Date.now() + GATHER_MS });
    plan();
    await raceAbort(tried.promise, signal).catch(() => undefined); // stopped
  };
}

function sourcesOf(batch: readonly Waiting[]): string[] {
  return batch.map(({ change }) => change.source);
}
