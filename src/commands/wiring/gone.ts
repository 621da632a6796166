import { loadGone } from '../../cache/gone-tags.ts';
import type { RecordStore } from '../../cache/record-store.ts';
import type { TagMemory } from '../../cache/tag-memory.ts';
import type { Store } from '../../store/store.ts';
import type { Log } from '../../telemetry/log.ts';

/** How late this process notices the tags that other replicas have found deleted, and those that
 *  pruning has removed, in ms. */
const REFRESH_MS = 600_000;
const TIMEOUT_MS = 60_000;

/** Keeps the list of tags that upstreams have deleted up to date; it outlives the process.
 *  @returns a function that ends this */
export function watchGone(cache: { memory: TagMemory; records: RecordStore }, { store, log }: { store: Store; log: Log }): () => void {
  const stop = new AbortController();
  const load = (): void => {
    const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(TIMEOUT_MS)]);
    loadGone(cache, store, signal).catch((error: unknown) => {
      if (!stop.signal.aborted) log.warn({ event: 'gone-not-listed', error }, 'cannot list the tags that upstreams have deleted');
    });
  };
  const timer = setInterval(load, REFRESH_MS);
  timer.unref();
  load();
  return () => {
    clearInterval(timer);
    stop.abort();
  };
}
