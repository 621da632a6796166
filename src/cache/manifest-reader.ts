import { BLOB_MEDIA_TYPE, type Descriptor } from '../oci/descriptor.ts';
import type { Reference } from '../oci/reference.ts';
import type { Manifest } from '../oci/registry.ts';
import type { Cache, Target } from './cache.ts';
import type { Manifests } from './manifests.ts';
import type { Located, References } from './references.ts';

/** A manifest, and how it was found. */
export interface FoundManifest extends Pick<Manifest, 'descriptor' | 'bytes' | 'stale'>, Pick<Located, 'outcome'> {
  /** Whether `AccessRecords.noteManifest` has seen the manifest. */
  isNoted: boolean;
}

export interface ManifestReader {
  /** A manifest whose tag, access record and bytes are in memory. Returned without a promise, since
   *  this is the answer to most requests. */
  recall(target: Target, reference: Reference): FoundManifest | undefined;
  /** The descriptor of a manifest whose tag and access record are in memory. */
  recallDescriptor(target: Target, reference: Reference): Descriptor | undefined;
  /** Reads a manifest from the storage, if the repository may serve it, or else fetches it.
   *  @throws OciError as the upstream does, if no cached content may be served */
  read(target: Target, reference: Reference, signal: AbortSignal): Promise<FoundManifest>;
}

export function createManifestReader(
  { access, manifests: inMemory }: Pick<Cache, 'access' | 'manifests'>,
  { references, manifests }: { references: References; manifests: Manifests },
): ManifestReader {
  return {
    recall(target, reference) {
      const digest = references.recall(target, reference);
      const record = digest === undefined ? undefined : access.recall(target.name, digest);
      const known = asManifest(record?.descriptor);
      const bytes = known === undefined ? undefined : inMemory.get(known.digest);
      if (record === undefined || known === undefined || bytes === undefined) return undefined;
      return { descriptor: describe(known, bytes), bytes, stale: false, outcome: 'hit', isNoted: record.isNoted };
    },

    recallDescriptor(target, reference) {
      const digest = references.recall(target, reference);
      return digest === undefined ? undefined : asManifest(access.recall(target.name, digest)?.descriptor);
    },

    async read(target, reference, signal) {
      const { digest, stale, outcome, manifest } = await references.locate(target, reference, { method: 'GET', signal });
      if (manifest !== undefined) return { ...manifest, stale, outcome, isNoted: false };
      // At the same time: both may have to be read from S3.
      const [record, bytes] = await Promise.all([access.find(target.name, digest, signal), manifests.stored(digest, signal)]);
      const known = asManifest(record);
      if (known !== undefined && bytes !== undefined) return { descriptor: describe(known, bytes), bytes, stale, outcome, isNoted: false };
      return { ...(await manifests.fetch(target, digest, signal)), stale, outcome: 'miss', isNoted: false };
    },
  };
}

function describe({ digest, mediaType }: Descriptor, { length: size }: Uint8Array): Descriptor {
  return { digest, mediaType, size };
}

/** Undefined for a descriptor of a blob: the content is no manifest, or one whose media type only
 *  the upstream knows. */
export function asManifest(known: Descriptor | undefined): Descriptor | undefined {
  return known?.mediaType === BLOB_MEDIA_TYPE ? undefined : known;
}
