import { BLOB_MEDIA_TYPE, OCI_INDEX, parseManifest, type Descriptor } from '../oci/descriptor.ts';
import { digestOf, type Digest, type DigestAlgorithm } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import { resolveRange } from '../oci/range.ts';
import { parseRepository, parseTag, type Reference, type Repository, type Tag } from '../oci/reference.ts';
import type { Context, Registry } from '../oci/registry.ts';

export interface Memory {
  registry: Registry;
  /** @returns the descriptor of the blob, which is known under this repository only */
  addBlob(repository: string, bytes: Uint8Array, algorithm?: DigestAlgorithm): Descriptor;
  addManifest(repository: string, manifest: MemoryManifest): Descriptor;
  removeTag(repository: string, tag: string): void;
}
export interface MemoryManifest {
  mediaType: string;
  bytes: Uint8Array;
  tags?: readonly string[];
  algorithm?: DigestAlgorithm;
}

interface Content {
  blobs: Map<Digest, Uint8Array>;
  manifests: Map<Digest, { descriptor: Descriptor; bytes: Uint8Array }>;
  tags: Map<Tag, Digest>;
}

const CHUNK = 64 * 1024;

/** A registry over content in memory, for tests of code that uses a registry. Its bodies keep only
 *  the minimum of the chunk contract: two alternating buffers, wiped as soon as the contract
 *  allows. */
export function createMemory(): Memory {
  const repositories = new Map<Repository, Content>();

  function contentOf(repository: Repository, { signal }: Context): Content {
    signal.throwIfAborted();
    const content = repositories.get(repository);
    if (content === undefined) throw new OciError('NAME_UNKNOWN', `there is no repository ${repository}`);
    return content;
  }

  function findManifest(repository: Repository, reference: Reference, context: Context): { descriptor: Descriptor; bytes: Uint8Array } {
    const content = contentOf(repository, context);
    const digest = content.tags.get(reference as Tag) ?? (reference as Digest);
    const found = content.manifests.get(digest);
    if (found === undefined) throw new OciError('MANIFEST_UNKNOWN', `${repository} has no manifest ${reference}`);
    return found;
  }

  function findBlob(repository: Repository, digest: Digest, context: Context): Uint8Array {
    const bytes = contentOf(repository, context).blobs.get(digest);
    if (bytes === undefined) throw new OciError('BLOB_UNKNOWN', `${repository} has no blob ${digest}`);
    return bytes;
  }

  function open(name: string): Content {
    const repository = parseRepository(name);
    const content = repositories.get(repository) ?? { blobs: new Map(), manifests: new Map(), tags: new Map() };
    repositories.set(repository, content);
    return content;
  }

  const registry: Registry = {
    resolve: async (repository, reference, context) => findManifest(repository, reference, context).descriptor,
    manifest: async (repository, reference, context) => ({ ...findManifest(repository, reference, context), stale: false }),
    stat: async (repository, digest, context) => ({
      mediaType: BLOB_MEDIA_TYPE,
      digest,
      size: findBlob(repository, digest, context).length,
    }),
    async blob(repository, digest, context) {
      const bytes = findBlob(repository, digest, context);
      const range = context.range === undefined ? undefined : resolveRange(context.range, bytes.length);
      const part = range === undefined ? bytes : bytes.subarray(range.start, range.end + 1);
      return { digest, size: bytes.length, range, body: inTwoBuffers(part, context.signal) };
    },
    async *tags(repository, context) {
      const { last } = context;
      const tags = [...contentOf(repository, context).tags.keys()].sort();
      yield last === undefined ? tags : tags.filter((tag) => tag > last);
    },
    async referrers(repository, digest, context) {
      const { artifactType } = context;
      const manifests = [...contentOf(repository, context).manifests.values()]
        .flatMap((manifest) => referrer(manifest.descriptor, manifest.bytes, digest))
        .filter((entry) => artifactType === undefined || entry.artifactType === artifactType);
      const index = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests }));
      return { index, filtersApplied: artifactType !== undefined };
    },
  };

  return {
    registry,
    addBlob(repository, bytes, algorithm) {
      const digest = digestOf(bytes, algorithm);
      open(repository).blobs.set(digest, bytes);
      return { mediaType: BLOB_MEDIA_TYPE, digest, size: bytes.length };
    },
    addManifest(repository, { mediaType, bytes, tags = [], algorithm }) {
      parseManifest(bytes, mediaType);
      const descriptor = { mediaType, digest: digestOf(bytes, algorithm), size: bytes.length };
      const content = open(repository);
      content.manifests.set(descriptor.digest, { descriptor, bytes });
      for (const tag of tags) content.tags.set(parseTag(tag), descriptor.digest);
      return descriptor;
    },
    removeTag(repository, tag) {
      open(repository).tags.delete(parseTag(tag));
    },
  };
}

async function* inTwoBuffers(bytes: Uint8Array, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const buffers = [Buffer.alloc(CHUNK), Buffer.alloc(CHUNK)] as const;
  for (let at = 0, turn = 0; at < bytes.length; at += CHUNK, turn++) {
    signal.throwIfAborted();
    const buffer = buffers[turn % 2 === 0 ? 0 : 1];
    buffer.fill(0);
    await new Promise(setImmediate); // a reader that still uses the wiped buffer reads zeroes
    buffer.set(bytes.subarray(at, at + CHUNK));
    yield buffer.subarray(0, Math.min(CHUNK, bytes.length - at));
  }
}

type Referrer = Descriptor & { artifactType?: string; annotations?: unknown };

/** The descriptor of a manifest whose subject is `digest` (distribution specification, "Listing
 *  Referrers"). */
function referrer(descriptor: Descriptor, bytes: Uint8Array, digest: Digest): Referrer[] {
  const manifest = JSON.parse(Buffer.from(bytes).toString('utf8')) as {
    subject?: { digest: string };
    artifactType?: string;
    config?: { mediaType: string };
    annotations?: unknown;
  };
  if (manifest.subject?.digest !== digest) return [];
  const artifactType = manifest.artifactType ?? manifest.config?.mediaType;
  return [
    {
      ...descriptor,
      ...(artifactType === undefined ? {} : { artifactType }),
      ...(manifest.annotations === undefined ? {} : { annotations: manifest.annotations }),
    },
  ];
}
