import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { ConfigError } from '../../config/load.ts';
import type { RegistryConfig, S3Config } from '../../config/schema.ts';
import { isOciError, OciError } from '../../oci/error.ts';
import type { CacheStorage } from '../../cache/cache.ts';
import type { Status } from '../../server/status-page.ts';
import { createBlobParts } from '../../store/blob-parts.ts';
import { filesystem, type FilesystemStore } from '../../store/filesystem/filesystem.ts';
import { blobKey } from '../../store/keys.ts';
import { localTier, type LocalTier } from '../../store/tiered/local-tier.ts';
import { observeStores } from '../../store/observed.ts';
import { createS3 } from './s3.ts';
import type { S3Store } from '../../store/s3/options.ts';
import { createUploads } from '../../store/tiered/upload-queue.ts';
import type { Log } from '../../telemetry/log.ts';
import type { RegistryMetrics } from '../../telemetry/registry-metrics.ts';
import { createRedirects, type Redirect } from '../../store/s3/redirects.ts';
import { filesystemUploads } from '../../store/filesystem/filesystem-uploads.ts';
import type { UploadStore } from '../../store/upload-store.ts';
import { backoff } from '../../async/backoff.ts';

/** The storage of a registry: one directory, or S3 and the local tier in front of it. */
export interface Storage extends CacheStorage {
  kind: 'filesystem' | 's3';
  /** Stores pushed content, without the local tier. */
  uploads: UploadStore;
  /** For spool files, on the same file system as `local`. */
  spoolDirectory: string;
  /** Finds a URL of S3 for a blob, for all clients or only for agents. Absent: blobs are
   *  served from here. */
  redirect: { find: Redirect; clients: 'all' | 'agents' } | undefined;
  status(): Status;
  close(signal: AbortSignal): Promise<void>;
}

export interface StorageContext {
  log: Log;
  metrics: RegistryMetrics;
}

/** The folder of spool files. The next process continues the downloads that a process leaves in
 *  it. */
const SPOOL = 'spool';
const START_LIMIT = 60_000;
/** How long another replica may take to store a blob that it has sent to this one, in ms; then this
 *  one stores it. */
const STORED_BY_PEER = 60_000;

/** @throws OciError UNAVAILABLE: the directory cannot be used. If S3 is down, the registry starts
 *  without it. */
export async function openStorage(config: RegistryConfig, context: StorageContext): Promise<Storage> {
  const { s3: remote, filesystem: directory } = config.storage;
  return remote === undefined ? openFilesystem(directory?.directory ?? './data', context) : openS3(remote, config.local, context);
}

/** The storage itself, for maintenance next to a running registry: without a local tier, and
 *  without creating anything.
 *  @throws ConfigError: the directory does not exist; OciError UNAVAILABLE: it cannot be used */
export async function openStore({ storage }: Pick<RegistryConfig, 'storage'>): Promise<UploadStore> {
  if (storage.s3 !== undefined) return createS3(storage.s3);
  const directory = storage.filesystem?.directory ?? './data';
  const found = await stat(directory).catch(() => undefined);
  if (found?.isDirectory() !== true) {
    throw new ConfigError(
      `registry.storage.filesystem.directory: found ${directory}, which does not exist; accepted: the directory of a registry that has run`,
    );
  }
  return filesystemUploads(await filesystem({ directory }));
}

/** @throws OciError UNAVAILABLE: it cannot be used; the message names the configuration's `key` */
async function openDirectory(directory: string, key: string): Promise<FilesystemStore> {
  return filesystem({ directory, inherited: SPOOL }).catch((cause: unknown) => {
    throw isOciError(cause) ? new OciError(cause.code, `${key}: ${cause.message}`, { cause }) : cause;
  });
}

async function openFilesystem(directory: string, { log, metrics }: StorageContext): Promise<Storage> {
  const opened = await openDirectory(directory, 'registry.storage.filesystem.directory');
  const observed = observeStores({ log, failed: (operation) => metrics.storageError(operation) });
  const store = observed(opened);
  const uploads = observed(filesystemUploads(opened));
  return {
    kind: 'filesystem',
    local: store,
    remote: undefined,
    records: store,
    uploads,
    spoolDirectory: join(store.temporaryDirectory, SPOOL),
    reserve: () => ({ grow: () => true, release: () => undefined }),
    keep: (digest, source, { signal }) => store.write(blobKey(digest), source, { signal }),
    parts: undefined,
    arrived: () => undefined,
    redirect: undefined,
    status: () => ({ storage: { directory: store.directory } }),
    close: () => uploads.close(),
  };
}

async function openS3(config: S3Config, tier: RegistryConfig['local'], { log, metrics }: StorageContext): Promise<Storage> {
  const remote = observeStores({ log, failed: (operation) => metrics.storageError(operation) })(await createS3(config, log));
  const files = await openDirectory(tier.directory, 'registry.local.directory');
  const local = localTier(files, tier.maxSize, (bytes) => metrics.localTier(bytes));
  const uploads = await createUploads({ files, tier: local, remote, log, observe: metrics });
  const stop = new AbortController();
  takeStock(local, { directory: tier.directory, log, signal: stop.signal });
  void prepare(remote, { log, bucket: config.bucket, signal: stop.signal });
  return {
    kind: 's3',
    local,
    remote,
    records: remote,
    uploads: remote,
    spoolDirectory: join(files.temporaryDirectory, SPOOL),
    reserve: local.reserve,
    async keep(digest, source, { from, room, signal }) {
      const key = blobKey(digest);
      if (from !== 'storage') await uploads.announce(key);
      try {
        room?.release();
        await local.write(key, source, { signal });
      } catch (error) {
        if (from !== 'storage') await uploads.withdraw(key);
        throw error;
      }
      if (from !== 'storage') uploads.enqueue(key, source.size, from === 'replica' ? STORED_BY_PEER : 0);
    },
    parts: createBlobParts(remote),
    arrived: (digest, size, from) => uploads.enqueue(blobKey(digest), size, from === 'replica' ? STORED_BY_PEER : 0),
    redirect: config.redirect && { find: createRedirects(remote, config.redirect.ttl), clients: config.redirect.clients },
    status: () => ({ storage: { bucket: config.bucket, local: local.used(), waiting: uploads.pending() } }),
    async close(signal) {
      stop.abort();
      await uploads.close(signal);
      await files.close();
      await remote.close();
    },
  };
}

/** Retries until it succeeds: S3 may start after the registry, and the bucket must be created
 *  then. */
async function prepare(remote: S3Store, { log, bucket, signal }: { log: Log; bucket: string; signal: AbortSignal }): Promise<void> {
  for (let attempt = 0; !signal.aborted; attempt++) {
    try {
      await remote.prepare({ signal: AbortSignal.any([signal, AbortSignal.timeout(START_LIMIT)]) });
      return;
    } catch (error) {
      if (signal.aborted) return;
      log.error({ event: 's3-unusable', error, bucket }, 'cannot use S3 now; serving from upstream and the local tier');
    }
    const pause = backoff(attempt, { baseMs: 1000, capMs: 60_000 });
    await delay(pause, undefined, { signal }).catch(() => undefined); // stopped
  }
}

/** Lists the blobs of the local tier. Those that are not uploaded yet have been pinned by now. The
 *  start does not wait for this listing, which may be long. */
function takeStock(local: LocalTier, { directory, log, signal }: { directory: string; log: Log; signal: AbortSignal }): void {
  local.takeStock(signal).catch((error: unknown) => {
    if (signal.aborted) return;
    log.error({ event: 'local-tier-not-listed', error, directory }, 'cannot list the local tier: it may grow beyond its size');
  });
}
