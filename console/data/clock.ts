import { signal } from '@preact/signals';

const TICK_MS = 5000;

/** The current time in ms since the epoch, for texts such as `5 minutes ago`. It follows the
 *  registry's clock, because the clock of the viewer's machine may be wrong. */
export const now = signal(Date.now());

let aheadMs = 0;

/** `time`: the registry's current time. */
export function setClock(time: number): void {
  aheadMs = time - Date.now();
  now.value = time;
}

export function startClock(): void {
  setInterval(() => {
    if (!document.hidden) now.value = Date.now() + aheadMs;
  }, TICK_MS);
}
