import { setTimeout as delay } from 'node:timers/promises';
import { readAll } from '../io/body.ts';
import { isOciError } from '../oci/error.ts';
import { bytesSource, type Store } from '../store/store.ts';
import type { Log } from '../telemetry/log.ts';
import { backoff } from '../async/backoff.ts';

/** How long a pull waits for a record, in ms: a store that is slow to say costs one question to upstream instead. */
const READ_LIMIT = 1500;
/** Bytes; a longer object is no record. */
const MAX_RECORD_SIZE = 65_536;
/** Records that may wait to be written while the store is away; the oldest are given up, which costs a question to upstream. */
const MAX_PENDING = 100_000;

/** The small JSON documents beside the blobs. Reading never fails a pull and writing never delays one: what the store cannot
 *  take now is kept here and written later. */
export interface Records {
  read(key: string, signal: AbortSignal): Promise<unknown>;
  /** `undefined` removes it. */
  write(key: string, value: unknown): void;
  pending(): number;
  /** Writes what is pending, while `signal` allows. */
  flush(signal: AbortSignal): Promise<void>;
}

export function createRecords(store: Store, log: Log): Records {
  const pending = new Map<string, { value: unknown }>();
  const stop = new AbortController();
  let writing: Promise<void> | undefined;

  async function writeOne(key: string, entry: { value: unknown }): Promise<void> {
    const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(10_000)]);
    if (entry.value === undefined) await store.remove(key, { signal });
    else {
      const bytes = entry.value === '' ? Buffer.alloc(0) : Buffer.from(JSON.stringify(entry.value));
      await store.write(key, bytesSource(bytes), { signal });
    }
    if (pending.get(key) === entry) pending.delete(key);
  }

  /** Behind the others: one that cannot be written must not keep them waiting. What no store can take is given up. */
  function postpone(key: string, entry: { value: unknown }, error: unknown): never {
    if (pending.get(key) === entry) {
      pending.delete(key);
      if (!isOciError(error, 'NAME_INVALID')) pending.set(key, entry);
    }
    throw error;
  }

  async function drain(): Promise<void> {
    for (let failures = 0; pending.size > 0 && !stop.signal.aborted;) {
      const batch = [...pending].slice(0, 8);
      const results = await Promise.allSettled(
        batch.map(([key, entry]) => writeOne(key, entry).catch((error: unknown) => postpone(key, entry, error))),
      );
      const failed = results.find((result) => result.status === 'rejected');
      if (failed === undefined) {
        failures = 0;
        continue;
      }
      failures++;
      log.warn({ error: failed.reason, pending: pending.size }, 'records cannot be written; they wait');
      while (pending.size > MAX_PENDING) for (const key of [...pending.keys()].slice(0, 1000)) pending.delete(key);
      await delay(backoff(failures, { baseMs: 250, capMs: 5000 }), undefined, { signal: stop.signal }).catch(() => undefined); // stopped
    }
  }

  function start(): void {
    writing ??= drain().finally(() => (writing = undefined));
  }

  return {
    async read(key, signal) {
      const waiting = pending.get(key);
      if (waiting !== undefined) return waiting.value;
      try {
        const found = await store.read(key, { signal: AbortSignal.any([signal, AbortSignal.timeout(READ_LIMIT)]) });
        if (found === undefined) return undefined;
        return JSON.parse(String(await readAll(found.body, MAX_RECORD_SIZE))) as unknown;
      } catch (error) {
        signal.throwIfAborted();
        log.warn({ error, key }, 'a record cannot be read; upstream is asked instead');
        return undefined;
      }
    },
    write(key, value) {
      pending.delete(key);
      pending.set(key, { value });
      start();
    },
    pending: () => pending.size,
    async flush(signal) {
      signal.addEventListener('abort', () => stop.abort(), { once: true });
      if (signal.aborted) stop.abort();
      start();
      await writing;
    },
  };
}
