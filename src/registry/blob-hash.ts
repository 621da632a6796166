import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { agrees, createDigestHash, splitDigest, type Digest } from '../oci/digest.ts';
import type { HashReply, HashRequest } from './hash-thread.ts';

/** Bytes of a blob from which on its hash is made in the thread for that: handing over a piece of 256 KiB takes the event loop a tenth of the
 *  time that hashing it does. */
const LARGE = 2 ** 20;
/** MiB of that thread's heap, which holds next to nothing. */
const HEAP = 16;

/** The hash of a blob as it comes. */
export interface BlobHash {
  /** Takes the bytes that come next. Resolves when it is done with them; until then they must stay as they are, and be in shared memory or few. */
  update(bytes: Uint8Array): Promise<void>;
  /** True when it has seen exactly the content of its digest. It takes no more then. */
  agrees(): Promise<boolean>;
  /** It is not needed any more. */
  drop(): void;
}

/** @param size Bytes of the blob; undefined: nobody knows */
export function createBlobHash(digest: Digest, size: number | undefined): BlobHash {
  return availableParallelism() === 1 || (size ?? Infinity) < LARGE ? createOwnHash(digest) : createThreadHash(digest);
}

function createOwnHash(digest: Digest): BlobHash {
  const hash = createDigestHash(digest);
  return {
    update: (bytes) => Promise.resolve(void hash.update(bytes)),
    agrees: () => Promise.resolve(agrees(hash, digest)),
    drop: () => undefined,
  };
}

function createThreadHash(digest: Digest): BlobHash {
  const { algorithm, hex } = splitDigest(digest);
  const thread = hashThread();
  const id = thread.open();
  return {
    update: async (bytes) => void (await thread.ask({ kind: 'update', id, algorithm, bytes })),
    agrees: async () => (await thread.ask({ kind: 'finish', id, algorithm })).hex === hex,
    drop: () => thread.close(id),
  };
}

interface HashThread {
  open(): number;
  /** @throws what ended the thread */
  ask(request: HashRequest): Promise<HashReply>;
  close(id: number): void;
}

let running: HashThread | undefined;

/** One for the whole process, from the first large blob on: it hashes some 2 GB/s. */
function hashThread(): HashThread {
  running ??= startHashThread(() => (running = undefined));
  return running;
}

function startHashThread(ended: () => void): HashThread {
  const worker = new Worker(new URL('./hash-thread.ts', import.meta.url), { env: {}, resourceLimits: { maxOldGenerationSizeMb: HEAP } });
  /** Who waits for a reply, by hash, the first one first. */
  const waiting = new Map<number, PromiseWithResolvers<HashReply>[]>();
  let asked = 0;
  let opened = 0;
  let failure: unknown;

  worker.unref();
  worker.on('message', (reply: HashReply) => {
    if (--asked === 0) worker.unref();
    waiting.get(reply.id)?.shift()?.resolve(reply);
  });
  worker.on('error', (error) => (failure = error));
  worker.on('exit', () => {
    ended();
    failure ??= new Error('the thread that hashes has ended');
    for (const { reject } of [...waiting.values()].flat()) reject(failure);
    waiting.clear();
  });

  function ask(request: HashRequest): Promise<HashReply> {
    const queue = waiting.get(request.id);
    if (queue === undefined) return Promise.reject(failure);
    const reply = Promise.withResolvers<HashReply>();
    queue.push(reply);
    if (asked++ === 0) worker.ref();
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
    worker.postMessage(request);
    return reply.promise;
  }

  return {
    open() {
      waiting.set(++opened, []);
      return opened;
    },
    ask,
    close(id) {
      const forget = () => void waiting.delete(id);
      ask({ kind: 'drop', id }).then(forget, forget);
    },
  };
}
