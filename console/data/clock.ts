import { signal } from '@preact/signals';

const TICK_MS = 5000;

/** The present, in ms since 1970, for texts such as `5 minutes ago`. The clock of the registry is
 *  the reference: that of the viewer's machine may be wrong. */
export const now = signal(Date.now());

let aheadMs = 0;

/** `time`: the registry's, as of now. */
export function setClock(time: number): void {
  aheadMs = time - Date.now();
  now.value = time;
}

export function startClock(): void {
  setInterval(() => {
    if (!document.hidden) now.value = Date.now() + aheadMs;
  }, TICK_MS);
}
