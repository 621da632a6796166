import { randomBytes } from 'node:crypto';
import { mkdir, open, readdir, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import type { Digest } from '../oci/digest.ts';
import { isOciError, OciError } from '../oci/error.ts';
import { resolveRange, type RangeRequest } from '../oci/range.ts';
import type { Repository } from '../oci/reference.ts';
import type { Blob } from '../oci/registry.ts';
import { blobKey } from '../store/keys.ts';
import { fileSource, type Store } from '../store/store.ts';
import type { Log } from '../telemetry/log.ts';
import type { RegistryMetrics } from '../telemetry/registry-metrics.ts';
import { startFill, type Fill } from './fill.ts';
import { settled } from './settled.ts';
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
  /** A blob from upstream is in `local`, and not yet in `remote`. */
  arrived(digest: Digest, size: number): void;
  log: Log;
  metrics: Pick<RegistryMetrics, 'fillStarted' | 'fillEnded'>;
  /** Fills at once; more wait. */
  maxFills?: number;
  /** Connections, beside one a fill, that all fills share. */
  maxHelpers?: number;
  /** Bytes. */
  maxBlobSize?: number;
}

export interface Reservation {
  /** Asks for `total` bytes; false: they are not to be had. */
  grow(total: number): boolean;
  release(): void;
}

export interface OpenOptions {
  range?: RangeRequest;
  signal: AbortSignal;
  source: FillSource;
  connections: number;
  /** Its name, for the metrics. */
  upstream: string;
  /** Under which it is asked for, with the upstream's name in front. */
  repository: Repository;
  /** Rejects unless the asking repository may have what others have fetched; asked before any of it is served. */
  proof(): Promise<void>;
  /** What `source` gave was whole and right, and has so many bytes. */
  fetched(size: number): void;
  /** What `source` gave was whole and wrong. */
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

/** A fill that was begun, and under which name. */
interface Begun {
  fill: Promise<Fill>;
  repository: Repository;
}

/** One fill a digest, whoever asks (DESIGN promise 2). */
export async function createFills(options: FillsOptions): Promise<Fills> {
  const { local, remote, log, spoolDirectory } = options;
  const running = new Map<Digest, Begun>();
  const slots = createSlots(options.maxFills ?? 256);
  let helpers = options.maxHelpers ?? 64;
  // What a process that was killed left behind: nothing of it is whole.
  await mkdir(spoolDirectory, { recursive: true });
  for (const name of await readdir(spoolDirectory)) if (name.endsWith('.spool')) await rm(join(spoolDirectory, name), { force: true });

  async function openLocal(digest: Digest, { range, signal }: OpenOptions): Promise<Blob | undefined> {
    const key = blobKey(digest);
    try {
      const found = await local.stat(key, { signal });
      if (found === undefined) return undefined;
      const asked = range === undefined ? undefined : resolveRange(range, found.size);
      const content = await local.read(key, { signal, ...(asked === undefined ? {} : { range: asked }) });
      return content === undefined ? undefined : { digest, size: found.size, range: asked, body: content.body };
    } catch (error) {
      if (signal.aborted || isOciError(error, 'RANGE_INVALID')) throw error;
      log.warn({ error, digest }, 'the local copy cannot be read; it is fetched again');
      return undefined;
    }
  }

  async function inRemote(digest: Digest, signal: AbortSignal): Promise<boolean> {
    if (remote === undefined) return false;
    try {
      return (await remote.stat(blobKey(digest), { signal: AbortSignal.any([signal, AbortSignal.timeout(2000)]) })) !== undefined;
    } catch (error) {
      signal.throwIfAborted();
      log.warn({ error, digest }, 'storage cannot say whether it has a blob; upstream is asked');
      return false;
    }
  }

  function takeConnection(): (() => void) | undefined {
    if (helpers === 0) return undefined;
    helpers--;
    return () => void helpers++;
  }

  async function begin(digest: Digest, stored: boolean, open: OpenOptions): Promise<Fill> {
    const release = await slots(AbortSignal.timeout(WAIT_LIMIT));
    const room = options.reserve();
    const path = join(spoolDirectory, `${randomBytes(12).toString('hex')}.spool`);
    const source = createSource(digest, stored, open);
    let kept = false;
    let fill: Fill;
    try {
      const { spool, usable } = await openSpool(path);
      fill = startFill({
        digest,
        source: (range, signal) => source.open(range, signal),
        spool,
        connections: open.connections,
        maxSize: options.maxBlobSize ?? 128 * 2 ** 30,
        takeConnection,
        reserve: (total) => usable && room.grow(total),
        start: open.range !== undefined && 'start' in open.range ? open.range.start : 0,
        spoolFailed(error) {
          log.error({ error, digest }, 'the spool takes no more: a blob is passed on without being kept');
        },
        corrupt: () => source.corrupt(),
        async keep(size) {
          open.fetched(size);
          kept = await keep({ digest, path, size, origin: source.origin() });
        },
      });
    } catch (error) {
      await rm(path, { force: true });
      room.release();
      release();
      throw error;
    }
    options.metrics.fillStarted(open.upstream);
    void fill.ended.then(async () => {
      options.metrics.fillEnded(open.upstream, fill.overflowed() ? 'uncached' : kept ? 'stored' : 'failed');
      release();
      room.release();
      await rm(path, { force: true });
    });
    return fill;
  }

  /** Where no file can be made, one that takes nothing stands in: readers then go on from the source. */
  async function openSpool(path: string): Promise<{ spool: FileHandle; usable: boolean }> {
    try {
      await mkdir(spoolDirectory, { recursive: true });
      return { spool: await open(path, 'wx+', 0o600), usable: true };
    } catch (error) {
      log.error({ error, directory: spoolDirectory }, 'the spool directory takes no file: blobs are passed on without being kept');
      return { spool: await open('/dev/null', 'r+'), usable: false };
    }
  }

  /** The store when it has the blob, and upstream when it has not, or fails in the middle. */
  function createSource(digest: Digest, stored: boolean, asked: OpenOptions) {
    let usable = stored;
    let fromUpstream = !stored;
    async function* watched(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
      try {
        yield* body;
      } catch (error) {
        usable = false;
        throw error;
      }
    }
    return {
      origin: (): 'upstream' | 'storage' => (fromUpstream ? 'upstream' : 'storage'),
      async open(range: Parameters<FillSource>[0], signal: AbortSignal): Promise<Blob> {
        if (usable && remote !== undefined) {
          try {
            const key = blobKey(digest);
            const found = range === undefined ? undefined : await remote.stat(key, { signal });
            const part = range === undefined || found === undefined ? undefined : resolveRange(range, found.size);
            const content = await remote.read(key, { signal, ...(part === undefined ? {} : { range: part }) });
            if (content !== undefined) return { digest, size: found?.size ?? content.size, range: part, body: watched(content.body) };
          } catch (error) {
            signal.throwIfAborted();
            log.warn({ error, digest }, 'storage cannot give a blob; it comes from upstream');
          }
          usable = false;
        }
        fromUpstream = true;
        return asked.source(range, signal);
      },
      corrupt() {
        log.error({ digest, origin: stored ? 'storage' : 'upstream' }, 'a blob came with wrong bytes; nothing of it was kept');
        if (fromUpstream) asked.corrupt();
        if (stored) {
          remote?.remove(blobKey(digest), { signal: AbortSignal.timeout(10_000) }).catch((error: unknown) => {
            log.warn({ error, digest }, 'a corrupt blob cannot be removed from storage');
          });
        }
      },
    };
  }

  async function keep(kept: { digest: Digest; path: string; size: number; origin: 'upstream' | 'storage' }): Promise<boolean> {
    const { digest, path, size, origin } = kept;
    try {
      await local.write(blobKey(digest), fileSource(path, size), { signal: AbortSignal.timeout(300_000) });
      if (origin === 'upstream') options.arrived(digest, size);
      return true;
    } catch (error) {
      log.error({ error, digest }, 'a blob was fetched but could not be kept');
      return false;
    }
  }

  /** @returns undefined: it takes no more readers, or failed as it was begun, for a reason that is its beginner's own */
  async function joinFill({ fill: promise, repository }: Begun, open: OpenOptions): Promise<Blob | undefined> {
    await open.proof();
    let fill: Fill | undefined;
    try {
      fill = await settled(promise, open.signal);
      return fill.overflowed() ? undefined : await fill.open(open.range, open.signal);
    } catch (error) {
      open.signal.throwIfAborted();
      // Without a size, the range that upstream refused was the beginner's.
      const own = isOciError(error, 'RANGE_INVALID') ? fill?.size() !== undefined : repository === open.repository;
      if (own) throw error;
      log.debug({ error, repository }, 'a shared fill failed before it gave a byte');
      return undefined;
    }
  }

  function start(digest: Digest, stored: boolean, open: OpenOptions): Promise<Fill> {
    const begun: Begun = { fill: begin(digest, stored, open), repository: open.repository };
    const forget = () => void (running.get(digest) === begun && running.delete(digest));
    begun.fill.then((fill) => fill.ended).then(forget, forget);
    running.set(digest, begun);
    return begun.fill;
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
        const stored = await inRemote(digest, open.signal);
        if (stored) await open.proof();
        // Between the questions above another reader may have begun the fill, or even ended it.
        const begun = running.get(digest);
        if (begun !== undefined && begun !== joined) continue;
        const fill = await settled(start(digest, stored, open), open.signal);
        const blob = (await fill.open(open.range, open.signal)) ?? (await openLocal(digest, open));
        if (blob === undefined) throw new OciError('UNAVAILABLE', `${digest} was fetched but is gone already`, { origin: 'storage' });
        return { blob, outcome: stored ? 'hit' : 'miss' };
      }
    },

    async close(signal) {
      const fills = await Promise.all([...running.values()].map(({ fill }) => fill.catch(() => undefined))); // failed ones are gone
      const all = Promise.all(fills.flatMap((fill) => (fill === undefined ? [] : [fill.ended])));
      await settled(all, signal).catch(() => {
        for (const fill of fills) fill?.abort(new OciError('UNAVAILABLE', 'the registry is stopping'));
      });
      await all;
    },
  };
}

/** At most `count` at once; the rest wait in turn. @throws OciError TOOMANYREQUESTS: the wait was as long as the signal */
function createSlots(count: number) {
  const waiting: (() => void)[] = [];
  let free = count;
  function release(): void {
    const next = waiting.shift();
    if (next === undefined) free++;
    else next();
  }
  return async function take(signal: AbortSignal): Promise<() => void> {
    if (free > 0) free--;
    else {
      const turn = Promise.withResolvers<void>();
      waiting.push(turn.resolve);
      try {
        await settled(turn.promise, signal);
      } catch {
        const index = waiting.indexOf(turn.resolve);
        if (index >= 0) waiting.splice(index, 1);
        else release();
        throw new OciError('TOOMANYREQUESTS', 'too many blobs are being fetched at once; try again shortly', { retryAfter: 5 });
      }
    }
    return release;
  };
}
