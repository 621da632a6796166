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

/** Events since the last frame, as text: only the last one of each kind is parsed. */
let unread: Partial<Record<keyof ConsoleEvents, string>> = {};
let frame: number | undefined;

let source: EventSource | undefined;
let retry: ReturnType<typeof setTimeout> | undefined;
let pauseMs = FIRST_RETRY_MS;

/** Receives live updates while the page is visible. A hidden page would cause work for the
 *  registry, and occupy one of the browser's six connections. */
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
  for (const kind of Object.keys(live) as (keyof ConsoleEvents)[]) {
    source.addEventListener(kind, ({ data }: MessageEvent<string>) => {
      unread[kind] = data;
      frame ??= requestAnimationFrame(readEvents);
    });
  }
  // The browser stops reconnecting after a response that is not an event stream, such as a
  // gateway's 503 or a 401. A separate request shows which it is.
  source.addEventListener('error', () => {
    close();
    get('/api/session').catch(() => undefined); // what fails is marked as lost
    retry = setTimeout(open, pauseMs);
    pauseMs = Math.min(pauseMs * 2, MAX_RETRY_MS);
  });
}

function readEvents(): void {
  const { downloads, jobs } = unread;
  unread = {};
  frame = undefined;
  if (downloads !== undefined) {
    const snapshot = JSON.parse(downloads) as ConsoleEvents['downloads'];
    live.downloads.value = snapshot;
    setClock(Date.parse(snapshot.at));
  }
  if (jobs !== undefined) live.jobs.value = JSON.parse(jobs) as ConsoleEvents['jobs'];
}

function close(): void {
  clearTimeout(retry);
  source?.close();
  source = undefined;
}
