import { setImmediate as turn, setTimeout as delay } from 'node:timers/promises';

/** How long a process may give no sign of life once it has been asked for one, in ms. */
const LIMIT = 700;
/** A timer that is so many ms late says that this process was held up itself, by a machine that is busy or a quota; nothing is to be concluded then. */
const HELD_UP = 150;
const MAX_ROUNDS = 3;
/** How long it may be silent before it is asked while somebody waits for it, in ms. */
const SILENCE = 250;

/** Whether another process lives. */
export interface Pulse {
  /** As far as is known; presumed of one that nobody has asked yet. */
  alive(): boolean;
  /** It has given a sign of life: an answer, a part of one. */
  heard(): void;
  /** Asks it once, with the others who ask now; `alive` knows the answer afterwards. Never rejects. */
  check(): Promise<void>;
  /** Calls `gone` once it is found to live no more. Returns what ends the watch. */
  watch(gone: () => void): () => void;
}

export interface PulseOptions {
  /** A request that costs nothing to answer. */
  ping(this: void, signal: AbortSignal): Promise<void>;
  /** It came to life, or lives no more. */
  changed(this: void, alive: boolean): void;
}

/** Tells a process that is gone or hung from one that is slow: the slow one still answers a cheap question. While somebody waits for
 *  it, it is asked whenever it is silent, and known to be gone within about a second. */
export function createPulse({ ping, changed }: PulseOptions): Pulse {
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
    const answer = ping(stop.signal).then(heard, () => undefined); // no sign of life, which is told below
    for (let round = 0; round < MAX_ROUNDS && heardAt < askedAt; round++) {
      const begun = performance.now();
      const late = delay(LIMIT, 'late', { signal: stop.signal }).catch(() => undefined); // stopped
      const told = (await Promise.race([answer, late])) !== 'late';
      // This process may be the slow one: what has arrived meanwhile is read first.
      for (let turns = 0; turns < 3 && heardAt < askedAt; turns++) await turn();
      if (told || performance.now() - begun < LIMIT + HELD_UP) break;
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
    } else if (performance.now() - heardAt > SILENCE) void check();
  }

  return {
    alive: () => alive,
    heard,
    check,
    watch(gone) {
      const own = () => gone(); // the same function may watch twice
      watchers.add(own);
      timer ??= setInterval(tick, SILENCE);
      tick();
      return () => void watchers.delete(own);
    },
  };
}
