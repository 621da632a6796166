import { signal, type Signal } from '@preact/signals';
import { get, markFound } from './api.ts';
import { setClock } from './clock.ts';
import type { ConsoleEvents } from './model.ts';

const FIRST_RETRY_MS = 1000;
const MAX_RETRY_MS = 15_000;

/** The last snapshot of each kind. */
export const live: { [Kind in keyof ConsoleEvents]: Signal<ConsoleEvents[Kind] | undefined> } = {
  downloads: signal(undefined),
  jobs: signal(undefined),
};

let source: EventSource | undefined;
let retry: ReturnType<typeof setTimeout> | undefined;
let pauseMs = FIRST_RETRY_MS;

/** Follows what happens while the page is visible. A hidden page would cost the registry work, and
 *  the browser one of its six connections. */
export function followEvents(): void {
  document.addEventListener('visibilitychange', () => (document.hidden ? close() : open()));
  if (!document.hidden) open();
}

function open(): void {
  close();
  source = new EventSource('/api/events');
  source.addEventListener('open', () => {
    pauseMs = FIRST_RETRY_MS;
    markFound();
  });
  source.addEventListener('downloads', ({ data }: MessageEvent<string>) => {
    const snapshot = JSON.parse(data) as ConsoleEvents['downloads'];
    live.downloads.value = snapshot;
    setClock(Date.parse(snapshot.at));
  });
  source.addEventListener('jobs', ({ data }: MessageEvent<string>) => {
    live.jobs.value = JSON.parse(data) as ConsoleEvents['jobs'];
  });
  // The browser's own attempts end for good with an answer that is no stream, such as a gateway's 503
  // or a request to sign in. Another question tells which it is.
  source.addEventListener('error', () => {
    close();
    get('/api/session').catch(() => undefined); // what fails is marked as lost
    retry = setTimeout(open, pauseMs);
    pauseMs = Math.min(pauseMs * 2, MAX_RETRY_MS);
  });
}

function close(): void {
  clearTimeout(retry);
  source?.close();
  source = undefined;
}
