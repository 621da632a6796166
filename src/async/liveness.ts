import { setImmediate as turn, setTimeout as delay } from 'node:timers/promises';

/** How long a process has to answer a ping. */
const ANSWER_TIMEOUT_MS = 700;
/** If a timer of this process fires this late, its own event loop was stalled, by a busy machine or
 *  a CPU quota: a missing answer then proves nothing. */
const STALLED_MS = 150;
const MAX_ROUNDS = 3;
/** While a request waits for the process, it is pinged after this long without a sign of life. */
const SILENCE_MS = 250;

/** Whether another process is alive. */
export interface Liveness {
  /** According to the last ping; true before the first one. */
  alive(): boolean;
  /** Call when the process has shown a sign of life: an answer, or a part of one. */
  heard(): void;
  /** Pings the process; concurrent calls share one ping. `alive` has the result afterwards. Never
   *  rejects. */
  check(): Promise<void>;
  /** Calls `gone` once when the process is found dead. Returns a function that ends the watch. */
  watch(gone: () => void): () => void;
}

export interface LivenessOptions {
  /** A request that costs nothing to answer. */
  ping(this: void, signal: AbortSignal): Promise<void>;
  /** Called when the process is found dead, or alive again. */
  changed(this: void, alive: boolean): void;
}

/** Tells a dead or hung process from a slow one, which still answers a cheap request. While a
 *  request waits for the process, the process is pinged whenever it is silent, and is found dead
 *  within about a second. */
export function createLiveness({ ping, changed }: LivenessOptions): Liveness {
  const watchers = new Set<() => void>();
  let alive = true;
  let heardAt = -Infinity;
  let checking: Promise<void> | undefined;
  let timer: NodeJS.Timeout | undefined;

  function heard(): void {
    heardAt = performance.now();
    if (alive) return;
    alive = true;
    changed(true);
  }

  function lost(): void {
    if (alive) changed(false);
    alive = false;
    for (const gone of watchers) gone();
    watchers.clear();
  }

  async function ask(): Promise<void> {
    const askedAt = performance.now();
    const stop = new AbortController();
    const answer = ping(stop.signal).then(heard, () => undefined); // no sign of life: handled below
    for (let round = 0; round < MAX_ROUNDS && heardAt < askedAt; round++) {
      const begun = performance.now();
      const late = delay(ANSWER_TIMEOUT_MS, 'late', { signal: stop.signal }).catch(() => undefined); // stopped
      const answered = (await Promise.race([answer, late])) !== 'late';
      // This process may be the slow one: read what has arrived before judging.
      for (let turns = 0; turns < 3 && heardAt < askedAt; turns++) await turn();
      if (answered || performance.now() - begun < ANSWER_TIMEOUT_MS + STALLED_MS) break;
    }
    stop.abort();
    if (heardAt < askedAt) lost();
  }

  function check(): Promise<void> {
    checking ??= ask().finally(() => (checking = undefined));
    return checking;
  }

  function tick(): void {
    if (watchers.size === 0) {
      clearInterval(timer);
      timer = undefined;
    } else if (performance.now() - heardAt > SILENCE_MS) void check();
  }

  return {
    alive: () => alive,
    heard,
    check,
    watch(gone) {
      const own = () => gone(); // the same function may watch twice
      watchers.add(own);
      timer ??= setInterval(tick, SILENCE_MS);
      tick();
      return () => void watchers.delete(own);
    },
  };
}
