import { randomBytes } from 'node:crypto';
import { open, readdir, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import type { Digest } from '../oci/digest.ts';
import { isOciError, OciError } from '../oci/error.ts';
import type { ByteRange, RangeRequest } from '../oci/range.ts';
import type { Repository } from '../oci/reference.ts';
import type { Blob, Body } from '../oci/registry.ts';
import { blobKey } from '../store/keys.ts';
import { mapBody } from '../io/body.ts';
import { makeDirectory } from '../io/make-directory.ts';
import { fileSource, type Store, type StoreSource } from '../store/store.ts';
import { absentAsUndefined } from '../io/absent.ts';
import type { Log } from '../telemetry/log.ts';
import type { RegistryMetrics } from '../telemetry/registry-metrics.ts';
import { startFill, type Fill } from './download.ts';
import { createOwnLoad } from './event-loop-load.ts';
import { raceAbort } from '../async/race-abort.ts';
import { createSemaphore } from '../async/semaphore.ts';
import type { FillSource } from './source.ts';

export interface FillsOptions {
  /** Where verified blobs are kept on this machine: the storage itself, or the tier in front of it. */
  local: Store;
  /** The storage behind the local tier, when there is one. */
  remote: Store | undefined;
  /** Of the same file system as `local`. */
  spoolDirectory: string;
  /** Room on disk for one fill. */
  reserve(): Reservation;
  /** Puts a verified blob into `local`, and what is not there yet into `remote`. @throws OciError UNAVAILABLE */
  keep(digest: Digest, source: StoreSource, how: Keeping): Promise<void>;
  log: Log;
  metrics: Pick<RegistryMetrics, 'fillStarted' | 'fillEnded'>;
  /** Fills at once; more wait. */
  maxFills?: number;
  /** Connections, beside one a fill, that all fills share; a fill that runs leaves one fewer of them. */
  maxHelpers?: number;
  /** Bytes. */
  maxBlobSize?: number;
}

export interface Reservation {
  /** Asks for `total` bytes; false: they are not to be had. */
  grow(total: number): boolean;
  release(): void;
}

export interface Keeping {
  /** `replica`: it is that one's to store. */
  from: Origin;
  /** Whose place the blob takes. */
  room?: Reservation;
  signal: AbortSignal;
}

export interface OpenOptions {
  range?: RangeRequest;
  signal: AbortSignal;
  source: FillSource;
  /** The same from the replica that fetches it for all, and keeps it; asked before `source`. Undefined: this is the one. */
  replica(): FillSource | undefined;
  /** Another replica asks: it gets what comes from upstream or storage, never what comes from another replica, itself perhaps. */
  hop: boolean;
  connections: number;
  /** Its name, for the metrics. */
  upstream: string;
  /** Under which it is asked for, with the upstream's name in front. */
  repository: Repository;
  /** Rejects unless the asking repository may have what others have fetched; asked before any of it is served. */
  proof(): Promise<void>;
  /** Storage is asked for the blob now: what the proof needs from it may be asked for beside that. */
  foresee(): void;
  /** What `source` or `replica` gave was whole and right, and has so many bytes. */
  fetched(size: number): void;
  /** What `source` or `replica` gave was whole and wrong. */
  corrupt(): void;
}

/** `hit`: served from what was here; `shared`: from a fill that others had started; `miss`: fetched for this reader. */
export type FillOutcome = 'hit' | 'shared' | 'miss';

export interface Fills {
  open(digest: Digest, options: OpenOptions): Promise<{ blob: Blob; outcome: FillOutcome }>;
  /** Ends what runs. Fills that are nearly whole get until `signal` aborts. */
  close(signal: AbortSignal): Promise<void>;
}

/** How long a reader waits for a fill of its own to begin, in ms: short enough that upstream's headers still come in time. */
const WAIT_LIMIT = 8000;

/** How long storage has to begin with a blob, in ms, before it comes from elsewhere. */
const STORAGE_PATIENCE = 2000;

/** Where a fill's bytes come from now. */
export type Origin = 'storage' | 'replica' | 'upstream';

/** A fill that was begun, and under which name. */
interface Begun {
  fill: Promise<Fill>;
  repository: Repository;
  source: Source;
}

/** A whole and right blob in the spool. */
interface Kept {
  digest: Digest;
  path: string;
  spool: FileHandle;
  size: number;
  from: Origin;
  room: Reservation;
}

interface Source {
  open: FillSource;
  origin(this: void): Origin;
  /** Where it comes from, once storage has given it or has not; never rejects. */
  located: Promise<Origin>;
  /** It failed before that. */
  giveUp(this: void): void;
  /** What it gave was whole and wrong. */
  corrupt(this: void): void;
}

/** One fill a digest, whoever asks (promise 2). */
export async function createFills(options: FillsOptions): Promise<Fills> {
  const { local, remote, log, spoolDirectory } = options;
  const running = new Map<Digest, Begun>();
  const slots = createSemaphore(options.maxFills ?? 256);
  let helpers = options.maxHelpers ?? 64;
  // More connections then bring nothing, and parts out of order, which are read back to be hashed.
  const busy = createOwnLoad();
  // What a process that was killed left behind: nothing of it is whole.
  await makeDirectory(spoolDirectory);
  for (const name of await readdir(spoolDirectory)) if (name.endsWith('.spool')) await rm(join(spoolDirectory, name), { force: true });

  async function openLocal(digest: Digest, { range, signal }: OpenOptions): Promise<Blob | undefined> {
    const key = blobKey(digest);
    try {
      const content = await local.read(key, { signal, ...(range === undefined ? {} : { range }) });
      return content === undefined ? undefined : { digest, size: content.size, range: content.range, body: content.body };
    } catch (error) {
      if (signal.aborted || isOciError(error, 'RANGE_INVALID')) throw error;
      log.warn({ error, digest }, 'the local copy cannot be read; it is fetched again');
      return undefined;
    }
  }

  function takeConnection(): (() => void) | undefined {
    // Many fills keep the line busy by themselves, and every connection holds some 256 KiB.
    if (helpers <= running.size) return undefined;
    helpers--;
    return () => void helpers++;
  }

  async function begin(digest: Digest, source: Source, open: OpenOptions): Promise<Fill> {
    const release = await slots.acquire(AbortSignal.timeout(WAIT_LIMIT)).catch((cause: unknown) => {
      throw new OciError('TOOMANYREQUESTS', 'too many blobs are being fetched at once; try again shortly', { cause, retryAfter: 5 });
    });
    const room = options.reserve();
    const path = join(spoolDirectory, `${randomBytes(12).toString('hex')}.spool`);
    let kept = false;
    let fill: Fill;
    try {
      const { spool, usable } = await openSpool(path);
      fill = startFill({
        digest,
        source: source.open,
        spool,
        connections: open.connections,
        maxSize: options.maxBlobSize ?? 128 * 2 ** 30,
        takeConnection,
        alone: () => source.origin() === 'replica' || busy(),
        reserve: (total) => usable && room.grow(total),
        start: open.range !== undefined && 'start' in open.range ? open.range.start : 0,
        spoolFailed(error) {
          log.error({ error, digest }, 'the spool takes no more: a blob is passed on without being kept');
        },
        corrupt: source.corrupt,
        async keep(size) {
          if (source.origin() !== 'storage') open.fetched(size);
          kept = await keep({ digest, path, spool, size, from: source.origin(), room });
        },
      });
    } catch (error) {
      room.release();
      release();
      await rm(path, { force: true }).catch(() => undefined); // what is left goes at the next start
      throw error;
    }
    options.metrics.fillStarted(open.upstream);
    void fill.ended.then(async () => {
      options.metrics.fillEnded(open.upstream, fill.overflowed() ? 'uncached' : kept ? 'stored' : 'failed');
      release();
      room.release();
      if (kept) return;
      await rm(path, { force: true }).catch((error: unknown) => {
        log.warn({ error, path }, 'what is left of a fill cannot be removed before the next start');
      });
    });
    return fill;
  }

  /** Where no file can be made, one that takes nothing stands in: readers then go on from the source. */
  async function openSpool(path: string): Promise<{ spool: FileHandle; usable: boolean }> {
    const create = () => open(path, 'wx+', 0o600);
    try {
      const spool = await absentAsUndefined(create());
      if (spool !== undefined) return { spool, usable: true };
      await makeDirectory(spoolDirectory);
      return { spool: await create(), usable: true };
    } catch (error) {
      log.error({ error, directory: spoolDirectory }, 'the spool directory takes no file: blobs are passed on without being kept');
      return { spool: await open('/dev/null', 'r+'), usable: false };
    }
  }

  /** Storage when it has the blob, then the replica that fetches it for all, then upstream: each until it fails, and never again. Storage is not
   *  asked first whether it has it: giving it is the answer, one round trip sooner. */
  function createSource(digest: Digest, asked: OpenOptions): Source {
    const replica = asked.replica();
    const behindStorage: Origin = replica === undefined ? 'upstream' : 'replica';
    let origin: Origin = remote === undefined ? behindStorage : 'storage';
    let stored = false;
    const located = Promise.withResolvers<Origin>();
    if (origin !== 'storage') located.resolve(origin);

    function leave(failed: Origin): void {
      if (origin === failed) origin = failed === 'storage' ? behindStorage : 'upstream';
      located.resolve(origin);
    }

    async function fromStorage(store: Store, range: ByteRange | undefined, signal: AbortSignal): Promise<Blob | undefined> {
      const key = blobKey(digest);
      const content = await store.read(key, { signal, within: STORAGE_PATIENCE, ...(range === undefined ? {} : { range }) });
      return content === undefined ? undefined : { digest, size: content.size, range: content.range, body: content.body };
    }

    return {
      origin: () => origin,
      located: located.promise,
      giveUp: () => located.resolve(origin),
      async open(range, signal) {
        if (origin === 'storage' && remote !== undefined) {
          try {
            const blob = await fromStorage(remote, range, signal);
            if (blob !== undefined) {
              stored = true;
              located.resolve('storage');
              return { ...blob, body: watched(blob.body, () => leave('storage')) };
            }
          } catch (error) {
            signal.throwIfAborted();
            log.warn({ error, digest }, 'storage cannot give a blob; it comes from elsewhere');
          }
          leave('storage');
        }
        if (origin === 'replica' && replica !== undefined) {
          try {
            const blob = await replica(range, signal);
            return { ...blob, body: watched(blob.body, () => leave('replica')) };
          } catch (error) {
            signal.throwIfAborted();
            log.debug({ error, digest }, 'another replica cannot give a blob; it comes from upstream');
          }
          leave('replica');
        }
        return asked.source(range, signal);
      },
      corrupt() {
        log.error({ digest, origin }, 'a blob came with wrong bytes; nothing of it was kept');
        if (origin !== 'storage') asked.corrupt();
        if (stored) {
          remote?.remove(blobKey(digest), { signal: AbortSignal.timeout(10_000) }).catch((error: unknown) => {
            log.warn({ error, digest }, 'a corrupt blob cannot be removed from storage');
          });
        }
      },
    };
  }

  async function keep(kept: Kept): Promise<boolean> {
    const { digest, path, spool, size, from, room } = kept;
    try {
      await options.keep(
        digest,
        { ...fileSource(path, size), spare: { path, handle: spool } },
        { from, room, signal: AbortSignal.timeout(300_000) },
      );
      return true;
    } catch (error) {
      log.error({ error, digest }, 'a blob was fetched but could not be kept');
      return false;
    }
  }

  /** Rejects unless who asks may have it. That a fill begins under a name is the proof for that name, when upstream gives it. */
  async function admit({ repository, source }: Begun, open: OpenOptions): Promise<void> {
    if (repository !== open.repository) await open.proof();
    else if ((await raceAbort(source.located, open.signal)) === 'storage') await open.proof();
  }

  /** @returns undefined: it takes no more readers, or failed as it was begun, for a reason that is its beginner's own
   *  @throws OciError UNAVAILABLE: two replicas would wait for each other */
  async function joinFill(begun: Begun, open: OpenOptions): Promise<Blob | undefined> {
    const { repository, source } = begun;
    await admit(begun, open);
    if (open.hop) await raceAbort(source.located, open.signal);
    if (open.hop && source.origin() === 'replica') {
      throw new OciError('UNAVAILABLE', 'this replica takes that blob from another one itself; it is to be had from upstream');
    }
    let fill: Fill | undefined;
    try {
      fill = await raceAbort(begun.fill, open.signal);
      return fill.overflowed() || fill.failed() ? undefined : await fill.open(open.range, open.signal);
    } catch (error) {
      open.signal.throwIfAborted();
      // Without a size, the range that upstream refused was the beginner's.
      const own = isOciError(error, 'RANGE_INVALID') ? fill?.size() !== undefined : repository === open.repository;
      if (own) throw error;
      log.debug({ error, repository }, 'a shared fill failed before it gave a byte');
      return undefined;
    }
  }

  function start(digest: Digest, open: OpenOptions): Begun {
    const source = createSource(digest, open);
    const begun: Begun = { fill: begin(digest, source, open), repository: open.repository, source };
    const forget = () => void (running.get(digest) === begun && running.delete(digest));
    begun.fill.then((fill) => fill.ended).then(forget, forget);
    begun.fill.then((fill) => fill.opened).catch(source.giveUp);
    running.set(digest, begun);
    return begun;
  }

  return {
    async open(digest, open) {
      for (let joined: Begun | undefined; ;) {
        const existing = running.get(digest);
        if (existing !== undefined && existing !== joined) {
          const blob = await joinFill(existing, open);
          if (blob !== undefined) return { blob, outcome: 'shared' };
          joined = existing;
        }
        const stat = await local.stat(blobKey(digest), { signal: open.signal }).catch(() => undefined); // read by openLocal, which tells
        if (stat !== undefined) {
          await open.proof();
          const blob = await openLocal(digest, open);
          if (blob !== undefined) return { blob, outcome: 'hit' };
        }
        // Between the questions above another reader may have begun the fill, or even ended it.
        const other = running.get(digest);
        if (other !== undefined && other !== joined) continue;
        if (remote !== undefined) open.foresee();
        const begun = start(digest, open);
        const fill = await raceAbort(begun.fill, open.signal);
        await admit(begun, open);
        const blob = (await fill.open(open.range, open.signal)) ?? (await openLocal(digest, open));
        if (blob === undefined) throw new OciError('UNAVAILABLE', `${digest} was fetched but is gone already`, { origin: 'storage' });
        return { blob, outcome: (await begun.source.located) === 'storage' ? 'hit' : 'miss' };
      }
    },

    async close(signal) {
      const fills = await Promise.all([...running.values()].map(({ fill }) => fill.catch(() => undefined))); // failed ones are gone
      const all = Promise.all(fills.flatMap((fill) => (fill === undefined ? [] : [fill.ended])));
      await raceAbort(all, signal).catch(() => {
        for (const fill of fills) fill?.abort(new OciError('UNAVAILABLE', 'the registry is stopping'));
      });
      await all;
    },
  };
}

/** Calls `failed` when `body` fails. */
function watched(body: Body, failed: () => void): Body {
  return mapBody(body, {
    onError(error) {
      failed();
      return error;
    },
  });
}
