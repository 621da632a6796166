import type { Download, DownloadRequest } from '../download/download.ts';
import { PROVES_ACCESS } from '../download/source.ts';
import { raceAbort } from '../async/race-abort.ts';
import { discardBody } from '../io/body.ts';
import { BLOB_MEDIA_TYPE } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import { isOciError, OciError } from '../oci/error.ts';
import type { RangeRequest } from '../oci/range.ts';
import type { Blob } from '../oci/registry.ts';
import { blobKey } from '../store/keys.ts';
import type { Cache, Target, Upstream } from './cache.ts';
import type { Proofs } from './proofs.ts';
import { sourcesOf } from './sources.ts';

export interface BlobsOptions {
  upstream: Upstream;
  cache: Cache;
  proofs: Proofs;
  /** The upstream's name. */
  name: string;
  /** Parallel connections for one download. */
  connections: number;
  /** As CachePolicy.untrusted. */
  untrusted?: boolean;
}

interface BlobRequest {
  range: RangeRequest | undefined;
  signal: AbortSignal;
}

interface StartOptions {
  range: RangeRequest | undefined;
  /** False: the upstream cannot be asked whether the repository has the blob, so only sources that
   *  prove access are read; a mirror may have the blob. */
  mayUseStorage: boolean;
}

/** How many downloads one request tries in turn, if they fail for reasons that may not apply to the
 *  next one. */
const MAX_DOWNLOADS = 4;

/** Reads blobs from this machine, from a running download, or by starting a new one. */
export function createBlobs({ upstream, cache, proofs, name, connections, untrusted = false }: BlobsOptions) {
  const { access, downloads, localBlobs, log } = cache;

  function start(digest: Digest, target: Target, { range, mayUseStorage }: StartOptions): Download {
    const distrusted = cache.distrusted.has(`${target.name}@${digest}`);
    const size = access.findNamed(target.name, digest)?.descriptor.size ?? 0;
    const request: DownloadRequest = {
      sources: sourcesOf(digest, target, { upstream, cache }).filter((source) => mayUseStorage || PROVES_ACCESS[source.name]),
      repository: target.name,
      upstream: name,
      connections,
      expectedSize: distrusted || size === 0 ? undefined : size,
      start: range !== undefined && 'start' in range ? range.start : 0,
      isLastResort: distrusted,
      continues: !untrusted,
    };
    const download = downloads.start(digest, request);
    void learn(digest, target, download);
    return download;
  }

  /** Records the result of a download: that the upstream serves the blob under this name, or that a
   *  source has wrong bytes. */
  async function learn(digest: Digest, target: Target, download: Download): Promise<void> {
    const { outcome, size, used } = await download.result;
    if (outcome === 'whole' && size !== undefined) {
      localBlobs.trust(digest, size);
      if (PROVES_ACCESS[await download.located]) access.grant(target.name, { digest, mediaType: BLOB_MEDIA_TYPE, size });
    }
    if (download.failure() !== 'corrupt') return;
    if (used.has('replica') || used.has('upstream')) cache.distrusted.set(`${target.name}@${digest}`, true);
    if (!used.has('storage')) return;
    await cache.storage.remote?.remove(blobKey(digest), { signal: AbortSignal.timeout(10_000) }).catch((error: unknown) => {
      log.warn({ event: 'corrupt-blob-not-removed', digest, error }, 'cannot remove a corrupt blob from the storage');
    });
  }

  /** Reads a blob from this machine, if the repository may serve it. Undefined: the blob is not on
   *  this machine. `unproved`: the upstream cannot be asked now whether the blob belongs to the
   *  repository.
   *  @throws OciError as `Proofs.require` */
  async function readStored(digest: Digest, target: Target, { range, signal }: BlobRequest): Promise<Blob | 'unproved' | undefined> {
    const blob = await localBlobs.open(digest, { range, signal });
    if (blob === undefined) return undefined;
    try {
      if (await proofs.require(target, { digest, size: blob.size }, signal)) return blob;
    } catch (error) {
      await discardBody(blob.body);
      throw error;
    }
    await discardBody(blob.body);
    return 'unproved';
  }

  /** Whether `target` may read from a download. If the download was started under the same name,
   *  its source may prove that (`PROVES_ACCESS`); otherwise the access record or the upstream has
   *  to. */
  async function admits(download: Download, target: Target, { digest, signal }: { digest: Digest; signal: AbortSignal }): Promise<boolean> {
    if (download.startedFor === target.name) {
      // Read the access record while the storage is asked for the blob.
      if (cache.storage.remote !== undefined) access.find(target.name, digest, signal).catch(() => undefined); // `require` throws it
      if (PROVES_ACCESS[await raceAbort(download.located, signal)]) return true;
    }
    return proofs.require(target, { digest, size: download.size() }, signal);
  }

  /** Reads from a download that another request has started. Undefined: the download accepts no
   *  more readers, or failed for a reason that does not concern this request.
   *  @throws OciError UNAVAILABLE: two replicas would wait for each other */
  async function join(download: Download, digest: Digest, target: Target, { range, signal }: BlobRequest): Promise<Blob | undefined> {
    if (!(await admits(download, target, { digest, signal }))) return undefined;
    if (cache.servesPeers) {
      await raceAbort(download.located, signal);
      if (download.source() === 'replica') {
        throw new OciError('UNAVAILABLE', 'this replica gets the blob from another replica itself; fetch it from upstream instead');
      }
    }
    if (!(await download.isJoinable(signal))) return undefined;
    try {
      return await download.read(range, signal);
    } catch (error) {
      signal.throwIfAborted();
      if (download.failure() === 'corrupt') return undefined;
      // While the size is unknown, the range that the upstream refused is that of the request that
      // started the download.
      const isOurs = isOciError(error, 'RANGE_INVALID') ? download.size() !== undefined : download.startedFor === target.name;
      if (isOurs) throw error;
      log.debug({ event: 'shared-download-failed', digest, repository: download.startedFor, error }, 'a shared download failed early');
      return undefined;
    }
  }

  /** Reads from the download that this request has started. Undefined: its bytes were wrong and
   *  another source may have the right ones, or it has ended and the blob is on this machine. */
  async function lead(download: Download, digest: Digest, target: Target, { range, signal }: BlobRequest): Promise<Blob | undefined> {
    try {
      return await download.read(range, signal);
    } catch (error) {
      signal.throwIfAborted();
      if (download.failure() !== 'corrupt') throw error;
      const { used } = await download.result;
      if (download.isLastResort && !used.has('storage')) throw error;
      log.warn(
        { event: 'blob-source-wrong', digest, repository: target.name },
        'a source sent wrong bytes; downloading the blob from another one',
      );
      return undefined;
    }
  }

  return {
    /** @returns where the blob came from, for the metrics */
    async read(digest: Digest, target: Target, request: BlobRequest): Promise<{ blob: Blob; outcome: 'hit' | 'miss' }> {
      const { range, signal } = request;
      let left: Download | undefined;
      let mayUseStorage = true;
      for (let tries = 0; tries < MAX_DOWNLOADS; tries++) {
        const running = downloads.running(digest);
        if (running !== undefined && running !== left) {
          const blob = await join(running, digest, target, request);
          if (blob !== undefined) return { blob, outcome: 'hit' };
          left = running;
        }
        const stored = mayUseStorage ? await readStored(digest, target, request) : undefined;
        if (stored === 'unproved') mayUseStorage = false;
        else if (stored !== undefined) return { blob: stored, outcome: 'hit' };
        // Another request may have started a download in the meantime.
        const other = downloads.running(digest);
        if (other !== undefined && other !== left) continue;
        if (left?.failure() === 'corrupt') await left.result; // `learn` then knows which source sent wrong bytes
        const own = start(digest, target, { range, mayUseStorage });
        left = own;
        mayUseStorage = await admits(own, target, { digest, signal });
        const blob = mayUseStorage ? await lead(own, digest, target, request) : undefined;
        if (blob !== undefined) return { blob, outcome: (await own.located) === 'storage' ? 'hit' : 'miss' };
      }
      throw new OciError('UNAVAILABLE', `${digest} could not be downloaded; try again`, { origin: 'upstream' });
    },
  };
}
