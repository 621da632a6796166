import { fsync } from 'node:fs';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import { syncRenamed } from './file-write.ts';

const sync = promisify(fsync);
/** A worker needs little memory. */
const HEAP = { maxOldGenerationSizeMb: 16, maxYoungGenerationSizeMb: 2 };

/** Bytes travel as text, a character each (latin1): a message that holds buffers makes a new one of
 *  each, which the garbage collector has to count. */
export type RecordRequest =
  /** Creates a file and writes it. It stays open. */
  | { kind: 'create'; temporary: string; text: string; volatile: boolean }
  /** Closes a created file, and moves it to `path`. `syncs`: durably. */
  | { kind: 'publish'; descriptor: number; temporary: string; path: string; syncs: boolean }
  | { kind: 'discard'; descriptor: number; temporary: string }
  | { kind: 'read'; path: string; maxBytes: number };

export interface RecordReply {
  /** Of `create`: the file, and whether it is synced, because that takes no time here. */
  descriptor?: number;
  synced?: boolean;
  /** Of `publish`: the first directory that had to be created. */
  made?: string | undefined;
  /** Of `read`; absent: there is no such file. */
  text?: string;
  error?: { message: string; code: string | undefined };
}

/** Reads and writes small files. */
export interface RecordThread {
  /** Writes a file by way of `temporary`, durably unless it is `volatile`. @throws the file
   *  system's errors */
  write(this: void, path: string, options: { temporary: string; bytes: Uint8Array; volatile: boolean }): Promise<void>;
  /** @returns undefined: there is no such file, or it is larger. @throws the file system's errors
   *  */
  read(this: void, path: string, maxBytes: number): Promise<Uint8Array | undefined>;
  close(this: void): Promise<void>;
}

/** A thread for small files, started when it is needed. Node's own calls take a thread of its pool
 *  for each open, write, rename and close, and waking that thread costs more than the call: a
 *  pushed manifest, which is three small files, took three times the processor time. Requests that
 *  come at once travel in one message. Only what waits for a disk is left to the pool. */
export function createRecordThread(): RecordThread {
  let worker: Worker | undefined;
  let gathered: RecordRequest[] = [];
  /** Requests without an answer, in their order. */
  let waiting: PromiseWithResolvers<RecordReply>[] = [];

  function fail(error: Error): void {
    worker = undefined;
    for (const { reject } of waiting.splice(0)) reject(error);
    gathered = [];
  }

  function start(): Worker {
    const started = new Worker(new URL('./record-worker.mjs', import.meta.url), { resourceLimits: HEAP });
    started.on('message', (replies: RecordReply[]) => {
      for (const reply of replies) waiting.shift()?.resolve(reply);
      if (waiting.length === 0) started.unref();
    });
    started.on('error', fail);
    started.on('exit', () => worker === started && fail(new Error('the thread that writes records has ended')));
    return started;
  }

  function flush(): void {
    const requests = gathered;
    gathered = [];
    if (requests.length === 0) return;
    worker ??= start();
    worker.ref();
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
    worker.postMessage(requests);
  }

  async function ask(request: RecordRequest): Promise<RecordReply> {
    const reply = Promise.withResolvers<RecordReply>();
    waiting.push(reply);
    gathered.push(request);
    if (gathered.length === 1) setImmediate(flush);
    const answer = await reply.promise;
    if (answer.error !== undefined) throw Object.assign(new Error(answer.error.message), { code: answer.error.code });
    return answer;
  }

  return {
    async write(path, { temporary, bytes, volatile }) {
      const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
      const { descriptor = -1, synced: isInstant = false } = await ask({ kind: 'create', temporary, text, volatile });
      try {
        if (!volatile && !isInstant) await sync(descriptor);
      } catch (error) {
        await ask({ kind: 'discard', descriptor, temporary });
        throw error;
      }
      const { made } = await ask({ kind: 'publish', descriptor, temporary, path, syncs: isInstant });
      if (!volatile && !isInstant) await syncRenamed(dirname(path), made);
    },
    async read(path, maxBytes) {
      const { text } = await ask({ kind: 'read', path, maxBytes });
      return text === undefined ? undefined : Buffer.from(text, 'latin1');
    },
    async close() {
      const ending = worker;
      worker = undefined;
      await ending?.terminate();
      fail(new Error('the store is closed'));
    },
  };
}
