import { raceAbort } from '../async/race-abort.ts';
import { createSemaphore, type Semaphore } from '../async/semaphore.ts';
import type { Digest } from '../oci/digest.ts';
import type { Repository } from '../oci/reference.ts';
import { OciError } from '../oci/error.ts';
import type { BlobParts } from '../store/blob-parts.ts';
import { fileSource, type StoreSource } from '../store/store.ts';
import type { Log } from '../telemetry/log.ts';
import type { RegistryMetrics } from '../telemetry/registry-metrics.ts';
import { createDownload, type Download, type DownloadRequest } from './download.ts';
import { createHelperBudget, type HelperBudget } from './helpers.ts';
import { createSourceList, type SourceList, type SourceName } from './source.ts';
import { createPartKeeper, type PartKeeper } from './part-keeping.ts';
import { createPartFinder, type PartFinder } from './restore.ts';
import { openSpoolDirectory, type SpoolDirectory, type SpoolFile } from './spool/spool-file.ts';
import type { Reservation } from './state.ts';
import { startTransfer, type Transfer } from './transfer.ts';

/** Stores the blobs that have been downloaded. */
export interface BlobKeeper {
  /** Room on disk for one download. */
  reserve(this: void): Reservation;
  /** Stores a verified blob. @throws OciError UNAVAILABLE */
  keep(this: void, digest: Digest, source: StoreSource, how: Keeping): Promise<void>;
  /** Where blobs that have no room on disk, and those that take long to arrive, are stored in
   *  parts. Undefined: the disk is the storage. */
  parts: BlobParts | undefined;
}

export interface Keeping {
  /** `replica`: that replica stores the blob in the shared storage. */
  from: SourceName;
  /** The download's reservation, which the stored blob takes over. */
  room?: Reservation;
  signal: AbortSignal;
}

export interface DownloadsOptions {
  keeper: BlobKeeper;
  /** On the same file system as the blobs of `keeper`. */
  spoolDirectory: string;
  log: Log;
  metrics: Pick<RegistryMetrics, 'downloadStarted' | 'downloadEnded'>;
  /** How many downloads may run at once; others wait. */
  maxDownloads?: number;
  /** Connections in addition to one per download, shared by all downloads; each running download
   *  leaves one fewer of them. */
  maxHelpers?: number;
  /** Bytes. */
  maxBlobSize?: number;
}

/** A running download, for display. */
export interface RunningDownload {
  digest: Digest;
  /** The repository that it was started for. */
  repository: Repository;
  upstream: string;
  source: SourceName;
  /** Bytes. */
  received: number;
  size: number | undefined;
  readers: number;
  /** Milliseconds since the epoch. */
  startedAt: number;
}

export interface Downloads {
  /** The running download of a blob. */
  running(digest: Digest): Download | undefined;
  /** All running downloads, the longest-running first. */
  list(): RunningDownload[];
  /** Starts a download, in place of one that accepts no more readers. */
  start(digest: Digest, request: DownloadRequest): Download;
  /** Ends the running downloads. Those that are nearly complete may finish until `signal` is
   *  aborted. */
  close(signal: AbortSignal): Promise<void>;
}

/** How long a request waits for its own download to start, in ms: short enough that upstream's
 *  headers still arrive in time. */
const MAX_WAIT_MS = 8000;
/** How long storing a blob may take, in ms. */
const KEEP_TIMEOUT_MS = 300_000;
const MAX_BLOB_SIZE = 128 * 2 ** 30;

/** Downloads blobs, each once at a time for all requests that need it (promise 2). */
export async function createDownloads(options: DownloadsOptions): Promise<Downloads> {
  const { keeper, spoolDirectory, log, metrics } = options;
  const running = new Map<Digest, Running>();
  const shared: Shared = {
    keeper,
    log,
    metrics,
    running,
    maxBlobSize: options.maxBlobSize ?? MAX_BLOB_SIZE,
    slots: createSemaphore(options.maxDownloads ?? 256),
    helpers: createHelperBudget({ max: options.maxHelpers ?? 64, running: () => running.size }),
    finder: keeper.parts && createPartFinder(keeper.parts),
    spools: await openSpoolDirectory(spoolDirectory, keeper.reserve),
  };
  return {
    running: (digest) => running.get(digest)?.download,
    list: () => [...running].map(([digest, entry]) => describe(digest, entry)),
    start: (digest, request) => start(shared, digest, request),
    close: (signal) => close(running, signal),
  };
}

/** What all downloads share. */
interface Shared extends Pick<DownloadsOptions, 'keeper' | 'log' | 'metrics'> {
  running: Map<Digest, Running>;
  maxBlobSize: number;
  slots: Semaphore;
  helpers: HelperBudget;
  finder: PartFinder | undefined;
  spools: SpoolDirectory;
}

interface Running {
  download: Download;
  transfer: Promise<Transfer>;
  ended: Promise<void>;
  upstream: string;
  startedAt: number;
}

/** A download that has been requested. */
interface Order {
  digest: Digest;
  request: DownloadRequest;
  sources: SourceList;
}

interface Begun {
  transfer: Transfer;
  file: SpoolFile;
  /** Undefined: the storage takes no parts of blobs. */
  parts: PartKeeper | undefined;
  room: Reservation;
  releaseSlot(this: void): void;
}

function start(shared: Shared, digest: Digest, request: DownloadRequest): Download {
  const { running, log } = shared;
  const sources = createSourceList({ ...request, digest, log });
  const order = { digest, request, sources };
  const before = running.get(digest);
  const failed = before?.download.failure() === undefined ? undefined : before.ended;
  const begun = begin(shared, order, failed);
  const transfer = begun.then((it) => it.transfer);
  transfer.then((it) => it.opened).catch(sources.giveUp);
  const ended = begun.then((it) => end(shared, order, it)).catch(() => undefined); // its readers get the error
  const download = createDownload(request, { sources, transfer });
  const entry = { download, transfer, ended, upstream: request.upstream, startedAt: Date.now() };
  running.set(digest, entry);
  void ended.then(() => running.get(digest) === entry && running.delete(digest));
  return download;
}

/** Starts the transfer of a download.
 *  @param failed - resolves when a download that has just failed has handed its spool file to this
 *  one
 *  @throws OciError TOOMANYREQUESTS */
async function begin(shared: Shared, order: Order, failed: Promise<void> | undefined): Promise<Begun> {
  await failed;
  const { keeper, log, metrics } = shared;
  const { digest, request, sources } = order;
  const releaseSlot = await takeSlot(shared.slots);
  const room = keeper.reserve();
  try {
    const file = await shared.spools.create(digest, request);
    if (file.failure !== undefined) {
      log.error({ event: 'spool-unusable', error: file.failure }, 'cannot create a spool file: streaming blobs without caching them');
    }
    const usable = { grow: (total: number) => file.failure === undefined && room.grow(total), release: room.release };
    const parts = await keepParts(shared, order, { file, room: usable });
    const transfer = startTransfer({
      digest,
      spool: file.handle,
      content: parts === undefined ? file.content : parts.content,
      progress: parts === undefined ? file.progress : parts.progress,
      parts: keeper.parts,
      maxSize: shared.maxBlobSize,
      room: usable,
      sources,
      helpers: shared.helpers.of(request.upstream),
      max: request.connections,
      start: request.start,
      expectedSize: request.expectedSize,
    });
    metrics.downloadStarted(request.upstream);
    return { transfer, file, parts, room, releaseSlot };
  } catch (error) {
    room.release();
    releaseSlot();
    throw error;
  }
}

async function takeSlot(slots: Semaphore): Promise<() => void> {
  try {
    return await slots.acquire(AbortSignal.timeout(MAX_WAIT_MS));
  } catch {
    throw new OciError('TOOMANYREQUESTS', 'too many blobs are being downloaded at once; try again shortly', { retryAfter: 5 });
  }
}

async function keepParts(
  { keeper: { parts }, finder, log }: Shared,
  { digest, request, sources }: Order,
  { file, room }: { file: SpoolFile; room: Reservation },
): Promise<PartKeeper | undefined> {
  return parts === undefined || finder === undefined
    ? undefined
    : createPartKeeper(digest, request, { parts, finder, file, room, sources, log });
}

/** Stores the blob of a transfer, and frees the transfer's resources. */
async function end(shared: Shared, order: Order, begun: Begun): Promise<void> {
  const { log, metrics } = shared;
  const { digest, request, sources } = order;
  const { transfer, file, parts, room, releaseSlot } = begun;
  const outcome = await transfer.outcome;
  const error = transfer.spoolError();
  if (error !== undefined)
    log.error({ event: 'spool-full', digest, error }, 'cannot write to the spool: streaming a blob without caching it');
  if (outcome === 'corrupt') {
    log.error({ event: 'blob-corrupt', digest, source: sources.current() }, 'a downloaded blob does not match its digest; discarded it');
  }
  const isJoined = (await parts?.finish(transfer, outcome)) ?? false;
  const isMoved = outcome === 'whole' && (await keep(shared, order, begun));
  const isStored = isMoved || isJoined || (outcome === 'streamed' && sources.current() !== 'upstream');
  metrics.downloadEnded(request.upstream, isStored ? 'stored' : outcome === 'streamed' ? 'uncached' : 'failed');
  transfer.close();
  releaseSlot();
  const unfinished = transfer.unfinished();
  if (unfinished !== undefined) return file.leave(unfinished, room.release);
  room.release();
  await (isMoved ? file.progress.remove() : file.remove()).catch((failure: unknown) => {
    log.warn({ event: 'spool-file-left', path: file.path, error: failure }, 'cannot remove a spool file; the next start removes it');
  });
}

/** @returns whether the blob is stored */
async function keep({ keeper, log }: Shared, { digest, sources }: Order, { transfer, file, room }: Begun): Promise<boolean> {
  const source = fileSource(file.path, transfer.size() ?? 0);
  const spare = { path: file.path, handle: file.handle };
  try {
    await keeper.keep(digest, { ...source, spare }, { from: sources.current(), room, signal: AbortSignal.timeout(KEEP_TIMEOUT_MS) });
    return true;
  } catch (error) {
    log.error({ event: 'blob-not-kept', digest, error }, 'a blob was downloaded but could not be stored');
    return false;
  }
}

function describe(digest: Digest, { download, upstream, startedAt }: Running): RunningDownload {
  const { received, readers } = download.progress();
  const source = download.source();
  return { digest, repository: download.startedFor, upstream, source, received, size: download.size(), readers, startedAt };
}

async function close(running: ReadonlyMap<Digest, Running>, signal: AbortSignal): Promise<void> {
  const all = Promise.all([...running.values()].map(({ ended }) => ended));
  const transfers = [...running.values()].map(({ transfer }) => transfer);
  await raceAbort(all, signal).catch(async () => {
    const reason = new OciError('UNAVAILABLE', 'the registry is stopping');
    for (const transfer of transfers) transfer.then((it) => it.abort(reason)).catch(() => undefined); // it never began
  });
  await all;
}
