import { stat } from 'node:fs/promises';
import { ConfigError } from '../config/load.ts';
import { createSecret } from '../config/secret.ts';
import type { RegistryConfig, S3Config } from '../config/schema.ts';
import type { Digest } from '../oci/digest.ts';
import { isOciError } from '../oci/error.ts';
import type { Reservation } from '../registry/fills.ts';
import type { Status } from '../server/status-page.ts';
import { filesystem } from '../store/filesystem.ts';
import { blobKey } from '../store/keys.ts';
import { localTier } from '../store/local-tier.ts';
import type { S3Store } from '../store/s3.ts';
import type { Store } from '../store/store.ts';
import { createUploads } from '../store/uploads.ts';
import type { Log } from '../telemetry/log.ts';
import type { RegistryMetrics } from '../telemetry/registry-metrics.ts';

/** Where a registry keeps what it has: one directory, or S3 and the tier in front of it. */
export interface Storage {
  kind: 'filesystem' | 's3';
  /** Where fills end up. */
  local: Store;
  /** What lies behind `local`. */
  remote: Store | undefined;
  /** Tags, members, usage. */
  records: Store;
  /** Of the same file system as `local`. */
  spoolDirectory: string;
  reserve(this: void): Reservation;
  /** A verified blob is in `local`; one from a replica is that one's to store. */
  arrived(this: void, digest: Digest, size: number, from: 'upstream' | 'replica'): void;
  /** A URL of S3 that gives a blob; undefined where it has none. Absent: blobs are served from here. */
  redirect: ((digest: Digest, signal: AbortSignal) => Promise<string | undefined>) | undefined;
  status(): Status;
  close(signal: AbortSignal): Promise<void>;
}

export interface StorageContext {
  log: Log;
  metrics: RegistryMetrics;
}

const START_LIMIT = 60_000;
/** How long another replica has to store what it gave to this one, before this one does, in ms. */
const STORED_BY_PEER = 60_000;

/** @throws OciError UNAVAILABLE: the directory cannot be used. An S3 that is away only costs its use. */
export async function openStorage(config: RegistryConfig, context: StorageContext): Promise<Storage> {
  const { s3: remote, filesystem: directory } = config.storage;
  return remote === undefined ? openFilesystem(directory?.directory ?? './data') : openS3(remote, config.local, context);
}

/** The storage itself, for who looks after it beside a running registry: no local tier, nothing made that is not there.
 *  @throws ConfigError: the directory is not there; OciError UNAVAILABLE: it cannot be used */
export async function openStore({ storage }: Pick<RegistryConfig, 'storage'>): Promise<Store> {
  if (storage.s3 !== undefined) return createS3(storage.s3);
  const directory = storage.filesystem?.directory ?? './data';
  const found = await stat(directory).catch(() => undefined);
  if (found?.isDirectory() !== true) {
    throw new ConfigError(`registry.storage.filesystem.directory: found ${directory}, where no directory is; accepted: that of a registry`);
  }
  return filesystem({ directory });
}

async function openFilesystem(directory: string): Promise<Storage> {
  const store = await filesystem({ directory });
  return {
    kind: 'filesystem',
    local: store,
    remote: undefined,
    records: store,
    spoolDirectory: store.temporaryDirectory,
    reserve: () => ({ grow: () => true, release: () => undefined }),
    arrived: () => undefined,
    redirect: undefined,
    status: () => ({ storage: { directory: store.directory } }),
    close: () => store.close(),
  };
}

async function openS3(config: S3Config, tier: RegistryConfig['local'], { log, metrics }: StorageContext): Promise<Storage> {
  const remote = await createS3(config);
  const files = await filesystem({ directory: tier.directory });
  const local = await localTier(files, tier.maxSize, AbortSignal.timeout(START_LIMIT));
  const uploads = await createUploads({ files, tier: local, remote, log, observe: metrics });
  remote.prepare({ signal: AbortSignal.timeout(START_LIMIT) }).catch((error: unknown) => {
    log.error({ error, bucket: config.bucket }, 'S3 cannot be used now; images come from upstream and the local tier meanwhile');
  });
  const { redirect } = config;
  return {
    kind: 's3',
    local,
    remote,
    records: remote,
    spoolDirectory: files.temporaryDirectory,
    reserve: local.reserve,
    arrived: (digest, size, from) => uploads.enqueue(blobKey(digest), size, from === 'replica' ? STORED_BY_PEER : 0),
    redirect:
      redirect === undefined
        ? undefined
        : async (digest, signal) => {
            const key = blobKey(digest);
            try {
              const stored = await remote.stat(key, { signal: AbortSignal.any([signal, AbortSignal.timeout(1500)]) });
              return stored === undefined ? undefined : await remote.presign(key, redirect.ttl);
            } catch (error) {
              if (signal.aborted || !isOciError(error)) throw error;
              return undefined; // it is served from here, or fetched again; the store has told the log
            }
          },
    status: () => ({ storage: { bucket: config.bucket, local: local.used(), waiting: uploads.pending() } }),
    async close(signal) {
      await uploads.close(signal);
      await files.close();
      await remote.close();
    },
  };
}

/** Loaded only where it is used: the SDK is large. */
async function createS3(config: S3Config): Promise<S3Store> {
  const { s3 } = await import('../store/s3.ts');
  const { accessKeyId, accessKeyIdFile, secretAccessKey, secretAccessKeyFile } = config;
  const id = createSecret({ value: accessKeyId, file: accessKeyIdFile });
  const secret = createSecret({ value: secretAccessKey, file: secretAccessKeyFile });
  const given = (accessKeyId ?? accessKeyIdFile) !== undefined;
  return s3({
    ...config,
    credentials: given ? async () => ({ accessKeyId: await id(), secretAccessKey: await secret() }) : undefined,
    redirectEndpoint: config.redirect?.endpoint,
  });
}
