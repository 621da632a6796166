import { createEventLoopLoad } from './event-loop-load.ts';

/** Connections beside the first one of each download, shared by all downloads. */
export interface HelperBudget {
  /** The helpers of one upstream. */
  of(upstream: string): Helpers;
}

export interface Helpers {
  /** Takes one connection; the function returned gives it back. Undefined: none is left, or they have failed at this upstream
   *  lately. */
  take(): (() => void) | undefined;
  /** A helper has failed where the first connection works: takes none for this upstream for a while. */
  discourage(): void;
  /** More connections would not help: this process itself is what the downloads wait for. */
  isBusy(): boolean;
}

export interface HelperBudgetOptions {
  max: number;
  /** How many downloads run; each leaves one helper fewer, since many downloads keep the network busy by themselves and every
   *  connection holds some 256 KiB. */
  running(this: void): number;
}

/** How long an upstream at which a helper failed gets none, in ms. */
const DISCOURAGED_MS = 120_000;

export function createHelperBudget({ max, running }: HelperBudgetOptions): HelperBudget {
  const isBusy = createEventLoopLoad();
  const discouragedUntil = new Map<string, number>();
  let free = max;
  return {
    of: (upstream) => ({
      take() {
        if (free <= running() || performance.now() < (discouragedUntil.get(upstream) ?? 0)) return undefined;
        free--;
        return () => void free++;
      },
      discourage: () => void discouragedUntil.set(upstream, performance.now() + DISCOURAGED_MS),
      isBusy,
    }),
  };
}
