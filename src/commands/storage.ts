import type { RegistryConfig } from '../config/schema.ts';
import type { Digest } from '../oci/digest.ts';
import type { Context } from '../oci/registry.ts';
import type { Repository } from '../oci/reference.ts';
import type { Reservation } from '../registry/fills.ts';
import type { Status } from '../server/status-page.ts';
import { filesystem } from '../store/filesystem.ts';
import type { Store } from '../store/store.ts';
import type { Log } from '../telemetry/log.ts';
import type { RegistryMetrics } from '../telemetry/registry-metrics.ts';

/** Where a registry keeps what it has, made of one store or of S3 and the tier in front of it. */
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
  /** A verified blob is in `local`. */
  arrived(this: void, digest: Digest, size: number): void;
  redirect: ((repository: Repository, digest: Digest, context: Context) => Promise<string | undefined>) | undefined;
  status(): Status;
  close(): Promise<void>;
}

export interface StorageContext {
  log: Log;
  metrics: RegistryMetrics;
}

/** @throws OciError UNAVAILABLE: the directory cannot be used */
export async function openStorage(config: RegistryConfig, _context: StorageContext): Promise<Storage> {
  const { directory } = config.storage.filesystem ?? { directory: config.local.directory };
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
