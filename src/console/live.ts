import { withoutCapability } from '../oci/capability.ts';
import type { Digest } from '../oci/digest.ts';
import type { Repository, Tag } from '../oci/reference.ts';
import type { Downloads } from './api/downloads.ts';

/** The state of a running download in this process. */
export interface DownloadProgress {
  digest: Digest;
  repository: Repository;
  upstream: string;
  source: 'storage' | 'replica' | 'upstream';
  /** Bytes. */
  received: number;
  size: number | undefined;
  readers: number;
  /** Milliseconds since the epoch. */
  startedAt: number;
}

export interface LiveOptions {
  downloads(this: void): readonly DownloadProgress[];
  /** The usual name of a repository's image that is not completely stored, with its tag if only one
   *  can be meant. */
  imageOf(this: void, repository: Repository): { name: string; tag: Tag | null };
  /** Requests and bytes sent since the process started. */
  totals(this: void): { requests: number; sentBytes: number };
  /** The address under which other replicas know this one, or its host name. */
  replica: string;
  now?: () => number;
}

/** At most this many downloads are in a snapshot. */
const MAX_DOWNLOADS = 200;
/** Speeds are averages over the last seconds. */
const WINDOW_MS = 5000;
const MIN_STEP_MS = 200;

interface Sample {
  at: number;
  value: number;
}

/** Snapshots of the running downloads of this process, with their speeds since earlier
 *  snapshots. */
export function createLive({ downloads, imageOf, totals, replica, now = Date.now }: LiveOptions): () => Omit<Downloads, 'unreachable'> {
  const samples: Samples = new Map();
  const rate = (key: string, value: number, since: number): number => growth(samples, key, { value, since, at: now() });

  return () => {
    const running = downloads();
    const described = running.map(({ digest, repository, upstream, source, received, size, readers, startedAt }) => ({
      digest,
      repository: withoutCapability(repository),
      image: imageOf(repository),
      upstream,
      source,
      receivedBytes: received,
      size: size ?? null,
      bytesPerSecond: Math.round(rate(`${digest} ${startedAt}`, received, startedAt)),
      startedAt: new Date(startedAt).toISOString(),
      readers,
      replica,
    }));
    const keys = new Set([...running.map(({ digest, startedAt }) => `${digest} ${startedAt}`), 'requests', 'sent']);
    for (const key of samples.keys()) if (!keys.has(key)) samples.delete(key);
    const { requests, sentBytes } = totals();
    return {
      at: new Date(now()).toISOString(),
      downloads: described.slice(0, MAX_DOWNLOADS),
      total: running.length,
      bytesPerSecond: described.reduce((sum, own) => sum + own.bytesPerSecond, 0),
      sentBytesPerSecond: Math.round(rate('sent', sentBytes, now())),
      requestsPerSecond: Math.round(10 * rate('requests', requests, now())) / 10,
    };
  };
}

type Samples = Map<string, Sample[]>;

/** Takes a sample of a value at `at`.
 *  @returns the growth of the value per second */
function growth(samples: Samples, key: string, { value, since, at }: { value: number; since: number; at: number }): number {
  const own = (samples.get(key) ?? [{ at: since, value: 0 }]).filter(
    (sample, index, all) => all[index + 1] === undefined || at - sample.at <= WINDOW_MS,
  );
  samples.set(key, own);
  const first = own[0] ?? { at, value };
  const last = own.at(-1) ?? first;
  if (at - last.at >= MIN_STEP_MS) own.push({ at, value });
  return at - first.at < MIN_STEP_MS ? 0 : Math.max(0, ((value - first.value) * 1000) / (at - first.at));
}

/** Merges the snapshots of several replicas, with the longest-running downloads first. */
export function mergeSnapshots(snapshots: readonly Omit<Downloads, 'unreachable'>[]): Omit<Downloads, 'unreachable'> {
  const sum = (field: 'total' | 'bytesPerSecond' | 'sentBytesPerSecond' | 'requestsPerSecond') =>
    snapshots.reduce((total, own) => total + own[field], 0);
  return {
    at: snapshots[0]?.at ?? new Date().toISOString(),
    downloads: snapshots
      .flatMap((own) => own.downloads)
      .sort((one, other) => one.startedAt.localeCompare(other.startedAt))
      .slice(0, MAX_DOWNLOADS),
    total: sum('total'),
    bytesPerSecond: sum('bytesPerSecond'),
    sentBytesPerSecond: sum('sentBytesPerSecond'),
    requestsPerSecond: sum('requestsPerSecond'),
  };
}
