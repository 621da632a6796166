import { BLOB_MEDIA_TYPE, MAX_MANIFEST_SIZE, OCI_INDEX, parseManifest } from '../oci/descriptor.ts';
import { digestOf, isDigest, splitDigest, type Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import type { Reference, Repository } from '../oci/reference.ts';
import { blobKey, memberKey, referrerListKey, tagKey } from '../store/keys.ts';
import type { Store } from '../store/store.ts';
import type { ImageReader } from './export-images.ts';

export interface StoreReader extends ImageReader {
  /** A stored blob for which the repository has an access record. The manifest alone is no proof
   *  that the blob is not from another one's private image. */
  find(this: void, repository: Repository, digest: Digest, signal: AbortSignal): ReturnType<Store['read']>;
}

/** Reads images directly from a store, without a running registry and without upstreams. */
export function createStoreReader(store: Store): StoreReader {
  const find: StoreReader['find'] = async (repository, digest, signal) =>
    (await readRecord(store, memberKey(repository, digest), signal)) === undefined ? undefined : store.read(blobKey(digest), { signal });

  return {
    find,
    async manifest(repository, reference, signal) {
      const digest = await locate(store, { repository, reference }, signal);
      const record = await readRecord(store, memberKey(repository, digest), signal);
      const bytes = record === undefined ? undefined : await readAll(store, blobKey(digest), signal);
      if (bytes === undefined) {
        throw new OciError(
          'MANIFEST_UNKNOWN',
          `the store does not hold ${repository}@${digest}: start the registry, which fetches it, or choose --platform`,
        );
      }
      if (digestOf(bytes, splitDigest(digest).algorithm) !== digest) {
        throw new OciError('UNAVAILABLE', `the stored manifest ${digest} is damaged: run cache verify --repair`);
      }
      const given = typeof record?.['mediaType'] === 'string' ? record['mediaType'] : BLOB_MEDIA_TYPE;
      const { mediaType } = parseManifest(bytes, given);
      return { descriptor: { digest, mediaType, size: bytes.length }, bytes, stale: false };
    },
    async referrers(repository, subject, signal) {
      const index = (await readRecord(store, referrerListKey(repository, subject), signal))?.['index'];
      return index === undefined ? [] : parseManifest(Buffer.from(JSON.stringify(index)), OCI_INDEX).manifests.map(({ digest }) => digest);
    },
    async blob(repository, { digest }, signal) {
      const found = await find(repository, digest, signal);
      if (found !== undefined) return found.body;
      throw new OciError('BLOB_UNKNOWN', `the store does not hold ${digest} of ${repository}: start the registry, which fetches it`);
    },
  };
}

async function locate(
  store: Store,
  { repository, reference }: { repository: Repository; reference: Reference },
  signal: AbortSignal,
): Promise<Digest> {
  if (isDigest(reference)) return reference;
  const digest = (await readRecord(store, tagKey(repository, reference), signal))?.['digest'];
  if (typeof digest === 'string' && isDigest(digest)) return digest;
  throw new OciError('MANIFEST_UNKNOWN', `the store does not know ${repository}:${reference}, and no registry answers that could fetch it`);
}

async function readRecord(store: Store, key: string, signal: AbortSignal): Promise<Record<string, unknown> | undefined> {
  const bytes = await readAll(store, key, signal);
  const record: unknown = bytes === undefined || bytes.length === 0 ? undefined : JSON.parse(bytes.toString());
  return typeof record === 'object' && record !== null ? (record as Record<string, unknown>) : undefined;
}

async function readAll(store: Store, key: string, signal: AbortSignal): Promise<Buffer | undefined> {
  const found = await store.read(key, { signal });
  if (found === undefined) return undefined;
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of found.body) {
    size += chunk.length;
    if (size > MAX_MANIFEST_SIZE) throw new OciError('MANIFEST_INVALID', `${key} has more than ${MAX_MANIFEST_SIZE} bytes`);
    chunks.push(Uint8Array.from(chunk));
  }
  return Buffer.concat(chunks);
}
