import type { Download } from '../download/download.ts';
import { PROVES_ACCESS } from '../download/source.ts';
import { BLOB_MEDIA_TYPE } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import type { RangeRequest } from '../oci/range.ts';
import { blobKey } from '../store/keys.ts';
import type { Cache, Target, Upstream } from './cache.ts';
import { sourcesOf } from './sources.ts';

export interface BlobDownloadsOptions {
  upstream: Upstream;
  cache: Cache;
  /** The upstream's name. */
  name: string;
  /** Parallel connections for one download. */
  connections: number;
  /** As CachePolicy.untrusted. */
  untrusted?: boolean;
}

export interface DownloadStart {
  digest: Digest;
  target: Target;
  range: RangeRequest | undefined;
  /** False: the upstream cannot be asked whether the repository has the blob, so only sources that
   *  prove access are read; a mirror may have the blob. */
  mayUseStorage: boolean;
}

/** Starts the download of a blob from the sources that may serve it. */
export function startDownload(
  { digest, target, range, mayUseStorage }: DownloadStart,
  { upstream, cache, name, connections, untrusted = false }: BlobDownloadsOptions,
): Download {
  const distrusted = cache.distrusted.has(`${target.name}@${digest}`);
  const size = cache.access.statedSize(target.name, digest) ?? 0;
  const download = cache.downloads.start(digest, {
    sources: sourcesOf(digest, target, { upstream, cache }).filter((source) => mayUseStorage || PROVES_ACCESS[source.name]),
    repository: target.name,
    upstream: name,
    connections,
    expectedSize: distrusted || size === 0 ? undefined : size,
    start: range !== undefined && 'start' in range ? range.start : 0,
    isLastResort: distrusted,
    continues: !untrusted,
  });
  void recordResult(download, { digest, target }, cache);
  return download;
}

/** Records the result of a download: that the upstream serves the blob under this name, or that a
 *  source has wrong bytes. */
async function recordResult(download: Download, { digest, target }: Pick<DownloadStart, 'digest' | 'target'>, cache: Cache): Promise<void> {
  const { outcome, size, used } = await download.result;
  if ((outcome === 'whole' || outcome === 'in-parts') && size !== undefined) {
    if (outcome === 'whole') cache.localBlobs.trust(digest, size);
    if (PROVES_ACCESS[await download.located]) cache.access.grant(target.name, { digest, mediaType: BLOB_MEDIA_TYPE, size });
  }
  if (download.failure() !== 'corrupt') return;
  if (used.has('replica') || used.has('upstream')) cache.distrusted.set(`${target.name}@${digest}`, true);
  if (!used.has('storage')) return;
  await cache.storage.remote?.remove(blobKey(digest), { signal: AbortSignal.timeout(10_000) }).catch((error: unknown) => {
    cache.log.warn({ event: 'corrupt-blob-not-removed', digest, error }, 'cannot remove a corrupt blob from the storage');
  });
}
