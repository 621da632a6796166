import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import type { DigestAlgorithm } from '../../oci/digest.ts';

/** Each worker writes and hashes at least a gigabyte per second. There are none on a machine with
 *  one processor. */
const THREADS = Math.min(4, Math.floor(availableParallelism() / 2));
/** A worker needs little memory. */
const HEAP = { maxOldGenerationSizeMb: 16, maxYoungGenerationSizeMb: 2 };

/** A request about one of the files; they are processed in order. */
export type SpoolRequest = { id: number } & (
  | { kind: 'open'; descriptor: number; algorithm: DigestAlgorithm }
  /** `hashed`: these are the next bytes to hash. */
  | { kind: 'write'; bytes: Uint8Array; position: number; hashed: boolean }
  /** Hashes [start, end) of the file. */
  | { kind: 'hash'; start: number; end: number }
  | { kind: 'finish' }
  | { kind: 'close' }
);
/** The reply to a request. `write` is answered once the bytes are written, before they are hashed;
 *  `finish` with the hash in hex. */
export interface SpoolReply {
  id: number;
  hex?: string;
  error?: { message: string; code: string | undefined };
}

type Asked<Request> = Request extends { id: number } ? Omit<Request, 'id'> : never;

/** A file that a worker writes and hashes. */
export interface ThreadFile {
  /** Requests are processed in the order of the calls. @throws the file system's errors, with their
   *  codes; the error that ended the worker */
  ask(this: void, request: Asked<SpoolRequest>): Promise<SpoolReply>;
  /** Resolves when the worker no longer uses the file; never rejects. */
  close(this: void): Promise<void>;
}
export interface SpoolThread {
  open(descriptor: number, algorithm: DigestAlgorithm): ThreadFile;
  /** How many files the worker has open. */
  used(): number;
}

const threads = new Set<SpoolThread>();

/** The worker with the fewest files, started when one is needed. Undefined: this machine has
 *  none. */
export function spoolThread(): SpoolThread | undefined {
  const [idlest] = [...threads].sort((one, other) => one.used() - other.used());
  if (threads.size === THREADS || idlest?.used() === 0) return idlest;
  const thread = startSpoolThread(() => threads.delete(thread));
  threads.add(thread);
  return thread;
}

function startSpoolThread(ended: () => void): SpoolThread {
  const worker = new Worker(new URL('./spool-worker.mjs', import.meta.url), { resourceLimits: HEAP });
  /** Requests that wait for a reply, by file, oldest first. */
  const waiting = new Map<number, PromiseWithResolvers<SpoolReply>[]>();
  let underWay = 0;
  let opened = 0;
  let failure: Error | undefined;

  worker.unref();
  worker.on('message', (reply: SpoolReply) => {
    if (--underWay === 0) worker.unref();
    const asked = waiting.get(reply.id)?.shift();
    if (reply.error === undefined) asked?.resolve(reply);
    else asked?.reject(Object.assign(new Error(reply.error.message), { code: reply.error.code }));
  });
  worker.on('error', (error: Error) => {
    failure = error;
    ended(); // the worker gets no more files before it exits
  });
  worker.on('exit', () => {
    ended();
    failure ??= new Error('the worker that writes blobs has ended');
    for (const { reject } of [...waiting.values()].flat()) reject(failure);
    waiting.clear();
  });

  return {
    used: () => waiting.size,
    open(descriptor, algorithm) {
      const id = ++opened;
      const queue: PromiseWithResolvers<SpoolReply>[] = [];
      waiting.set(id, queue);

      async function ask(request: Asked<SpoolRequest>): Promise<SpoolReply> {
        if (failure !== undefined) throw failure;
        // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
        worker.postMessage({ ...request, id });
        if (underWay++ === 0) worker.ref();
        const reply = Promise.withResolvers<SpoolReply>();
        queue.push(reply);
        return reply.promise;
      }

      ask({ kind: 'open', descriptor, algorithm }).catch(() => undefined); // the next request fails too
      return {
        ask,
        async close() {
          await ask({ kind: 'close' }).catch(() => undefined); // the worker has ended: it uses nothing
          waiting.delete(id);
        },
      };
    },
  };
}
