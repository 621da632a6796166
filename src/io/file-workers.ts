import { closeSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import type { DigestAlgorithm } from '../oci/digest.ts';

/** Each worker writes and hashes at least a gigabyte per second. There are none on a machine with
 *  one processor. */
const WRITERS = Math.min(4, Math.floor(availableParallelism() / 2));
/** The event loop has little to do while workers read from sockets. */
const RECEIVERS = WRITERS === 0 ? 0 : Math.min(4, availableParallelism());
/** A worker needs little memory. */
const HEAP = { maxOldGenerationSizeMb: 16, maxYoungGenerationSizeMb: 2 };

/** A request about one of the hashes; they are processed in order. The caller keeps the file of
 *  `descriptor` open until the reply. */
export type FileRequest = { id: number } & (
  | { kind: 'open'; algorithm: DigestAlgorithm }
  /** `hashed`: these are the next bytes to hash. */
  | { kind: 'write'; descriptor: number; bytes: Uint8Array; position: number; hashed: boolean }
  /** Writes to the file's current position, and hashes. The pieces have memory of their own, which
   *  moves to the worker. */
  | { kind: 'append'; descriptor: number; pieces: Uint8Array<ArrayBuffer>[] }
  /** Appends `begun`, and then `length` bytes that arrive at the socket with the descriptor
   *  `socket`, which is closed in the end. Each time `syncSize` bytes have been written, they are
   *  synced while the next ones arrive. */
  | ({ kind: 'receive'; descriptor: number; syncSize: number } & ReceivedBytes)
  /** Ends the receiving, which is answered with an error. Has no reply itself. */
  | { kind: 'stop' }
  /** Hashes [start, end) of the file. */
  | { kind: 'hash'; descriptor: number; start: number; end: number }
  | { kind: 'digest' }
  | { kind: 'close' }
);
type ReceivedBytes = Record<'socket' | 'length', number> & { begun: readonly Uint8Array[] };
/** The reply to a request. `write` and `append` are answered once the bytes are written, before
 *  they are hashed; `receive` when all are hashed and synced, or with the code DISCONNECTED if the
 *  client has closed the connection; `digest` with the hash so far, in hex. */
export interface FileReply {
  id: number;
  hex?: string;
  error?: { message: string; code: string | undefined };
}

type Asked<Request> = Request extends { id: number } ? Omit<Request, 'id'> : never;

/** A hash of bytes that a worker writes to files. */
export interface WorkerHash {
  /** Requests are processed in the order of the calls. @throws the file system's errors, with their
   *  codes; the error that ended the worker */
  ask(this: void, request: Asked<FileRequest>): Promise<FileReply>;
  /** Makes a request to receive bytes fail. */
  stop(this: void): void;
  /** Resolves when the worker has processed all requests; never rejects. */
  close(this: void): Promise<void>;
}
export interface FileWorker {
  open(algorithm: DigestAlgorithm): WorkerHash;
  /** How many hashes the worker has open. */
  used(): number;
}

const workers = new Set<FileWorker>();

/** The worker with the fewest hashes, started when one is needed. Undefined: this machine has
 *  none. */
export function fileWorker(purpose: 'write' | 'receive' = 'write'): FileWorker | undefined {
  const [idlest] = [...workers].sort((one, other) => one.used() - other.used());
  const threads = purpose === 'write' ? WRITERS : RECEIVERS;
  if (workers.size >= threads || idlest?.used() === 0) return idlest;
  const worker = startFileWorker(() => workers.delete(worker));
  workers.add(worker);
  return worker;
}

function startFileWorker(ended: () => void): FileWorker {
  const worker = new Worker(new URL('./file-worker.mjs', import.meta.url), { resourceLimits: HEAP });
  /** Requests that wait for a reply, by hash, oldest first. */
  const waiting = new Map<number, PromiseWithResolvers<FileReply>[]>();
  let underWay = 0;
  let opened = 0;
  let failure: Error | undefined;

  worker.unref();
  worker.on('message', (reply: FileReply) => {
    if (--underWay === 0) worker.unref();
    const asked = waiting.get(reply.id)?.shift();
    if (reply.error === undefined) asked?.resolve(reply);
    else asked?.reject(Object.assign(new Error(reply.error.message), { code: reply.error.code }));
  });
  worker.on('error', (error: Error) => {
    failure = error;
    ended(); // the worker gets no more hashes before it exits
  });
  worker.on('exit', () => {
    ended();
    failure ??= new Error('the worker that writes blobs has ended');
    for (const { reject } of [...waiting.values()].flat()) reject(failure);
    waiting.clear();
  });

  return {
    used: () => waiting.size,
    open(algorithm) {
      const id = ++opened;
      const queue: PromiseWithResolvers<FileReply>[] = [];
      waiting.set(id, queue);

      async function ask(request: Asked<FileRequest>): Promise<FileReply> {
        if (failure !== undefined) {
          if (request.kind === 'receive') closeSync(request.socket);
          throw failure;
        }
        const moved = request.kind === 'append' ? request.pieces.map(({ buffer }) => buffer) : [];
        worker.postMessage({ ...request, id }, moved);
        if (underWay++ === 0) worker.ref();
        const reply = Promise.withResolvers<FileReply>();
        queue.push(reply);
        return reply.promise;
      }

      ask({ kind: 'open', algorithm }).catch(() => undefined); // the next request fails too
      return {
        ask,
        stop: () => worker.postMessage({ kind: 'stop', id } satisfies FileRequest, []),
        async close() {
          await ask({ kind: 'close' }).catch(() => undefined); // the worker has ended: it uses nothing
          waiting.delete(id);
        },
      };
    },
  };
}
