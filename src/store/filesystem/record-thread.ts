import { fsync } from 'node:fs';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import { UNSYNCABLE } from '../../io/sync-directory.ts';
import { directoriesAreSynced, syncRenamed } from './file-write.ts';

const sync = promisify(fsync);
/** A worker needs little memory. */
const HEAP = { maxOldGenerationSizeMb: 16, maxYoungGenerationSizeMb: 2 };

/** A file that is written, but not synced yet, nor moved to `path`. */
export interface CreatedFile {
  descriptor: number;
  temporary: string;
  path: string;
}

export interface FoundFile {
  size: number;
  /** In ms since the epoch. */
  modified: number;
  isFile: boolean;
}

export interface ListedFile {
  name: string;
  size: number;
  /** In ms since the epoch. */
  modified: number;
}

export interface RecordWorkerData {
  /** Of the store. */
  directory: string;
  /** The beginning of the paths of temporary files. */
  temporary: string;
  /** See `UNSYNCABLE`; the thread imports no TypeScript. */
  unsyncable: readonly string[];
}

/** Bytes travel as text, a character each (latin1): a message that holds buffers makes a new one of
 *  each, which the garbage collector has to count. */
export type RecordRequest =
  | { kind: 'write'; files: { path: string; text: string }[]; volatile: boolean }
  /** The rest is left to the caller. */
  | { kind: 'create'; files: { path: string; text: string }[] }
  /** Closes the file, and moves it. */
  | { kind: 'publish'; file: CreatedFile }
  | { kind: 'discard'; file: CreatedFile }
  | { kind: 'link'; from: string; path: string }
  | { kind: 'list'; path: string }
  | { kind: 'remove-empty-parents'; path: string }
  | { kind: 'read'; path: string; maxBytes: number }
  | { kind: 'stat'; path: string };

export interface RecordReply {
  /** Of `create`; of `write`, where syncing takes time: the rest is left to the caller. Absent: all
   *  is done. */
  created?: CreatedFile[];
  /** Of `create`: the files are synced; of `publish` and `link`: the new name is durable. Where
   *  syncing takes time, it is left to the caller. */
  isSynced?: boolean;
  /** Of `publish` and `link`, unless `isSynced`: the first directory that had to be created. */
  made?: string | undefined;
  /** Of `read`; absent: there is no such file. */
  text?: string;
  /** Of `stat`; absent: there is nothing. */
  found?: FoundFile;
  /** Of `list`; absent: there are many, or there are directories. */
  files?: ListedFile[];
  error?: { message: string; code: string | undefined };
}

export interface RecordFile {
  path: string;
  bytes: Uint8Array;
}

/** Files that are written, but not visible yet. All functions throw the file system's errors. */
export interface PreparedFiles {
  sync(this: void): Promise<void>;
  /** Makes the files visible, one after the other: none of them before those ahead of it are
   *  durable. */
  publish(this: void): Promise<void>;
  /** Removes the files that are not visible. */
  discard(this: void): Promise<void>;
}

/** Reads and writes small files. */
export interface RecordThread {
  /** Writes files one after the other, durably unless they are `volatile`: none of them is visible
   *  before those ahead of it are durable. @throws the file system's errors */
  write(this: void, files: readonly RecordFile[], options: { volatile: boolean }): Promise<void>;
  /** The first half of `write`. @throws the file system's errors */
  prepare(this: void, files: readonly RecordFile[]): Promise<PreparedFiles>;
  /** @returns undefined: there is no such file, or it is larger. @throws the file system's errors
   *  */
  read(this: void, path: string, maxBytes: number): Promise<Uint8Array | undefined>;
  /** @returns undefined: there is nothing */
  stat(this: void, path: string): Promise<FoundFile | undefined>;
  /** The files of a directory, which may be absent. @returns undefined: there are many, or there
   *  are directories */
  list(this: void, path: string): Promise<ListedFile[] | undefined>;
  /** Gives a file another name, durably. @param syncOthers syncs what was written before: a journal
   *  writes it together with the new name
   *  @throws the file system's errors: EEXIST if the name is used */
  link(this: void, from: string, path: string, syncOthers?: PreparedFiles['sync']): Promise<void>;
  /** Removes the directories above `path`, below that of the store, that are empty. */
  removeEmptyParents(this: void, path: string): Promise<void>;
  close(this: void): Promise<void>;
}

/** A thread for small files, started when it is needed. Node's own calls take a thread of its pool
 *  for each open, write, rename and close, and waking that thread costs more than the call: a
 *  pushed manifest, which is three small files, took three times the processor time. Only what
 *  waits for a disk is left to the pool.
 *  @param directory that of the store */
export function createRecordThread(directory: string, temporaryDirectory: string): RecordThread {
  const { ask, close } = createMessages(directory, temporaryDirectory);

  async function awaitName(path: string, { isSynced = false, made }: RecordReply): Promise<void> {
    await (isSynced ? directoriesAreSynced() : syncRenamed(dirname(path), made));
  }

  function prepared({ created = [], isSynced = false }: RecordReply): PreparedFiles {
    const left = [...created];
    let syncing = isSynced ? Promise.resolve() : undefined;
    const syncOnce = (): Promise<void> => (syncing ??= syncAll(created));
    return {
      sync: syncOnce,
      async publish() {
        await syncOnce();
        for (let file = left.shift(); file !== undefined; file = left.shift()) {
          await awaitName(file.path, await ask({ kind: 'publish', file }));
        }
      },
      async discard() {
        await syncing?.catch(() => undefined); // thrown by `sync`
        for (const file of left.splice(0)) await ask({ kind: 'discard', file });
      },
    };
  }

  async function complete({ publish, discard }: PreparedFiles): Promise<void> {
    try {
      await publish();
    } catch (error) {
      await discard();
      throw error;
    }
  }

  return {
    async write(files, { volatile }) {
      const reply = await ask({ kind: 'write', files: files.map(withText), volatile });
      if (reply.created !== undefined) await complete(prepared(reply));
      else if (!volatile) await directoriesAreSynced();
    },
    prepare: async (files) => prepared(await ask({ kind: 'create', files: files.map(withText) })),
    read: (path, maxBytes) => ask({ kind: 'read', path, maxBytes }).then(bytesOf),
    stat: async (path) => (await ask({ kind: 'stat', path })).found,
    list: async (path) => (await ask({ kind: 'list', path })).files,
    async link(from, path, syncOthers) {
      const reply = await ask({ kind: 'link', from, path });
      await Promise.all([awaitName(path, reply), syncOthers?.()]);
    },
    removeEmptyParents: async (path) => void (await ask({ kind: 'remove-empty-parents', path })),
    close,
  };
}

function bytesOf({ text }: RecordReply): Uint8Array | undefined {
  return text === undefined ? undefined : Buffer.from(text, 'latin1');
}

/** Syncs files together. */
async function syncAll(created: readonly CreatedFile[]): Promise<void> {
  // None of them is closed while the pool syncs it.
  for (const result of await Promise.allSettled(created.map(({ descriptor }) => sync(descriptor)))) {
    if (result.status === 'rejected') throw result.reason;
  }
}

function withText({ path, bytes }: RecordFile): { path: string; text: string } {
  return { path, text: textOf(bytes) };
}

function textOf({ buffer, byteOffset, length }: Uint8Array): string {
  return Buffer.from(buffer, byteOffset, length).toString('latin1');
}

type Caller = Pick<PromiseWithResolvers<RecordReply>, 'resolve' | 'reject'>;

/** Sends requests to the thread, those of one turn of the event loop in one message. While it
 *  answers a message, further requests are gathered for the next one: each message wakes a thread. */
function createMessages(
  directory: string,
  temporaryDirectory: string,
): Pick<RecordThread, 'close'> & { ask(this: void, request: RecordRequest): Promise<RecordReply> } {
  let worker: Worker | undefined;
  /** The number of threads started. */
  let threads = 0;
  let gathered: RecordRequest[] = [];
  /** The callers of the gathered requests, in the same order. */
  let waiting: Caller[] = [];
  /** The callers of the requests that the thread is answering. */
  let answering: Caller[] = [];

  function fail(error: Error): void {
    worker = undefined;
    const failed = [...answering, ...waiting];
    [answering, waiting, gathered] = [[], [], []];
    for (const { reject } of failed) reject(error);
  }

  function start(): Worker {
    const started = new Worker(new URL('./record-worker.mjs', import.meta.url), {
      resourceLimits: HEAP,
      workerData: {
        directory,
        temporary: join(temporaryDirectory, `record-${++threads}-`),
        unsyncable: UNSYNCABLE,
      } satisfies RecordWorkerData,
    });
    started.on('message', (replies: RecordReply[]) => {
      if (worker !== started) return; // its callers have been rejected; `answering` are those of another thread
      const answered = answering;
      answering = [];
      for (const [index, reply] of replies.entries()) settle(answered[index], reply);
      if (waiting.length === 0) started.unref();
      else setImmediate(flush); // the answered callers may ask at once
    });
    started.on('error', (error: Error) => worker === started && fail(error));
    started.on('exit', () => worker === started && fail(new Error('the thread that writes records has ended')));
    return started;
  }

  function flush(): void {
    if (answering.length > 0 || gathered.length === 0) return;
    const requests = gathered;
    [answering, waiting, gathered] = [waiting, [], []];
    worker ??= start();
    worker.ref();
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
    worker.postMessage(requests);
  }

  return {
    ask(request) {
      return new Promise((resolve, reject) => {
        waiting.push({ resolve, reject });
        gathered.push(request);
        if (gathered.length === 1 && answering.length === 0) setImmediate(flush);
      });
    },
    async close() {
      const ending = worker;
      worker = undefined;
      await ending?.terminate();
      fail(new Error('the store is closed'));
    },
  };
}

function settle(caller: Caller | undefined, reply: RecordReply): void {
  if (reply.error === undefined) caller?.resolve(reply);
  else caller?.reject(Object.assign(new Error(reply.error.message), { code: reply.error.code }));
}
