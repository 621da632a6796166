import { setTimeout as delay } from 'node:timers/promises';
import { readAll } from '../io/body.ts';
import { isOciError } from '../oci/error.ts';
import { bytesSource, type Store } from '../store/store.ts';
import type { Log } from '../telemetry/log.ts';
import { backoff } from '../async/backoff.ts';

/** How long a pull waits for a record, in ms: when the store is slow, the upstream is asked
 *  instead. */
const READ_TIMEOUT_MS = 1500;
const WRITE_TIMEOUT_MS = 10_000;
/** Bytes; a longer object is no record. */
const MAX_RECORD_SIZE = 65_536;
/** Records that may wait to be written while the store is unavailable. When there are more, the
 *  oldest are dropped, and upstream is asked again later. */
const MAX_PENDING = 100_000;
const WRITES_AT_ONCE = 8;

/** The small JSON documents that belong to the blobs. Reading never fails a pull and writing never
 *  delays one: records that the store cannot accept now are kept in memory and written later. */
export interface RecordStore {
  /** Undefined: there is no such record, it is longer than `maxSize` bytes (64 KiB by default), or
   *  it cannot be read now. */
  read(key: string, signal: AbortSignal, maxSize?: number): Promise<unknown>;
  put(key: string, value: object): void;
  /** Writes an empty object; the key carries all the information. */
  mark(key: string): void;
  remove(key: string): void;
  /** How many records wait to be written. */
  pending(): number;
  /** Writes pending records, until `signal` is aborted. */
  flush(signal: AbortSignal): Promise<void>;
}

/** A record that waits to be written: its value, to be parsed as JSON; empty for a mark; undefined
 *  to be removed. */
type Pending = { value: object | '' | undefined };

export function createRecordStore(store: Store, log: Log): RecordStore {
  const queue: Queue = { store, log, pending: new Map(), stop: new AbortController(), writing: undefined };
  const { pending, stop } = queue;
  return {
    read: (key, signal, maxSize = MAX_RECORD_SIZE) => read(queue, key, { signal, maxSize }),
    put: (key, value) => enqueue(queue, key, value),
    mark: (key) => enqueue(queue, key, ''),
    remove: (key) => enqueue(queue, key, undefined),
    pending: () => pending.size,
    async flush(signal) {
      signal.addEventListener('abort', () => stop.abort(), { once: true });
      if (signal.aborted) stop.abort();
      startWriting(queue);
      await queue.writing;
    },
  };
}

interface Queue {
  store: Store;
  log: Log;
  /** By their keys, the newest last. */
  pending: Map<string, Pending>;
  stop: AbortController;
  /** Undefined: nothing is being written. */
  writing: Promise<void> | undefined;
}

async function read(
  { store, log, pending }: Queue,
  key: string,
  { signal, maxSize }: { signal: AbortSignal; maxSize: number },
): Promise<unknown> {
  const waiting = pending.get(key);
  if (waiting !== undefined) return waiting.value === '' ? undefined : waiting.value;
  try {
    const found = await store.read(key, { signal: AbortSignal.any([signal, AbortSignal.timeout(READ_TIMEOUT_MS)]) });
    if (found === undefined) return undefined;
    return JSON.parse(String(await readAll(found.body, maxSize))) as unknown;
  } catch (error) {
    signal.throwIfAborted();
    log.warn({ event: 'record-not-read', key, error }, 'cannot read a metadata record; asking upstream instead');
    return undefined;
  }
}

function enqueue(queue: Queue, key: string, value: Pending['value']): void {
  const { pending } = queue;
  pending.delete(key); // the newest come last
  pending.set(key, { value });
  startWriting(queue);
}

function startWriting(queue: Queue): void {
  queue.writing ??= writeAll(queue).finally(() => (queue.writing = undefined));
}

async function writeAll(queue: Queue): Promise<void> {
  const { log, pending, stop } = queue;
  for (let failures = 0; pending.size > 0 && !stop.signal.aborted;) {
    const batch = [...pending].slice(0, WRITES_AT_ONCE);
    const results = await Promise.allSettled(
      batch.map(([key, entry]) => writeOne(queue, key, entry).catch((error: unknown) => postpone(pending, { key, entry, error }))),
    );
    const failed = results.find((result) => result.status === 'rejected');
    if (failed === undefined) {
      failures = 0;
      continue;
    }
    failures++;
    const entry = { event: 'records-not-written', error: failed.reason, pending: pending.size };
    log.warn(entry, 'cannot write metadata records; will retry');
    while (pending.size > MAX_PENDING) for (const key of [...pending.keys()].slice(0, 1000)) pending.delete(key);
    await delay(backoff(failures, { baseMs: 250, capMs: 5000 }), undefined, { signal: stop.signal }).catch(() => undefined); // stopped
  }
}

async function writeOne({ store, pending, stop }: Queue, key: string, entry: Pending): Promise<void> {
  const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(WRITE_TIMEOUT_MS)]);
  if (entry.value === undefined) await store.remove(key, { signal });
  else {
    const bytes = entry.value === '' ? Buffer.alloc(0) : Buffer.from(JSON.stringify(entry.value));
    await store.write(key, bytesSource(bytes), { signal });
  }
  if (pending.get(key) === entry) pending.delete(key);
}

/** Moves a record to the end of the queue, so that it does not hold up the others. A record that no
 *  store can accept is dropped. */
function postpone(pending: Queue['pending'], { key, entry, error }: { key: string; entry: Pending; error: unknown }): never {
  if (pending.get(key) === entry) {
    pending.delete(key);
    if (!isOciError(error, 'NAME_INVALID')) pending.set(key, entry);
  }
  throw error;
}
