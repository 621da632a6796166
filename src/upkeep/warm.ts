import { setTimeout as delay } from 'node:timers/promises';
import { OCI_INDEX, parseManifest, type Descriptor, type ManifestContent } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import { isAbsent, isOciError, OciError } from '../oci/error.ts';
import { formatPlatform, matchesPlatform } from '../oci/platform.ts';
import { parseTag, type Reference, type Repository, type Tag } from '../oci/reference.ts';
import type { Registry } from '../oci/registry.ts';
import { inParallel } from '../async/parallel.ts';
import { backoff } from '../async/backoff.ts';

export interface WarmOptions {
  /** `linux/amd64`, `linux/arm/v7`; or all platforms that an index names. */
  platforms: readonly string[] | 'all';
  /** Signatures, SBOMs and other referrers as well. */
  referrers: boolean;
  /** Whether a blob is already stored in its place and need not be read. */
  isStored(this: void, digest: Digest, signal: AbortSignal): Promise<boolean>;
  signal: AbortSignal;
}

export interface Warmed {
  manifests: number;
  blobs: number;
  /** How many of these blobs were stored already. */
  known: number;
  /** Bytes that were read. */
  bytes: number;
  /** Why some signatures or other referrers are missing; the image itself is complete. */
  referrersError?: string;
}

const BLOBS_AT_ONCE = 3;
const ATTEMPTS = 3;
const FIRST_PAUSE_MS = 500;

/** The maximum number of referrers fetched for one image. */
const MAX_REFERRERS = 500;

type IndexedManifest = ManifestContent['manifests'][number];

interface Content {
  manifests: Digest[];
  blobs: Map<Digest, Descriptor>;
}

/** The tags under which cosign keeps content that it does not attach as a referrer. */
function signatureTags(digest: Digest): Tag[] {
  return ['sig', 'att', 'sbom'].map((kind) => parseTag(`${digest.replace(':', '-')}.${kind}`));
}

/** @throws OciError MANIFEST_UNKNOWN: an index has none of the platforms */
function ofPlatforms(manifests: readonly IndexedManifest[], wanted: readonly string[] | 'all'): readonly IndexedManifest[] {
  if (wanted === 'all' || manifests.length === 0) return manifests;
  const found = manifests.filter(({ platform }) => wanted.some((one) => matchesPlatform(platform, one)));
  if (found.length > 0) return found;
  const there = manifests.map(({ platform }) => formatPlatform(platform)).filter((name) => name !== '');
  throw new OciError('MANIFEST_UNKNOWN', `it has no ${String(wanted)}, only ${there.join(', ') || 'manifests without a platform'}`);
}

/** Pulls images as a node would, and discards the bytes: the registry that it reads from stores
 *  them. Blobs that several images share are read once. */
export function createWarmer(registry: Registry, { platforms, referrers, isStored, signal }: WarmOptions) {
  const from: Pulling = { registry, isStored, signal, reading: new Map() };

  /** @throws OciError as the registry does; MANIFEST_UNKNOWN: the index has none of the
   *  platforms */
  return async function warm(
    repository: Repository,
    reference: Reference,
    progress: (bytes: number, total: number) => void,
  ): Promise<Warmed> {
    const warmed: Warmed = { manifests: 0, blobs: 0, known: 0, bytes: 0 };
    let [done, total] = [0, 0];
    const advance = (bytes: number): void => progress((done += bytes), total);

    async function readAll({ manifests, blobs }: Content): Promise<void> {
      warmed.manifests += manifests.length;
      warmed.blobs += blobs.size;
      for (const { size } of blobs.values()) total += size;
      await inParallel(blobs.values(), BLOBS_AT_ONCE, async (blob) => {
        const bytes = await readOnce({ repository, blob, advance }, from);
        if (bytes === 0) warmed.known++;
        warmed.bytes += bytes;
      });
    }

    const image = await collect(repository, { references: [reference], platforms }, from);
    await readAll(image);
    try {
      if (referrers) {
        const references = await findReferrers(repository, image.manifests, from);
        await readAll(await collect(repository, { references, platforms: 'all' }, from));
      }
    } catch (error) {
      signal.throwIfAborted();
      if (!isOciError(error)) throw error;
      warmed.referrersError = error.message;
    }
    return warmed;
  };
}

interface Pulling extends Pick<WarmOptions, 'isStored' | 'signal'> {
  registry: Registry;
  /** Blobs that are being read or have been read, by any image. */
  reading: Map<Digest, Promise<void>>;
}

/** The manifests and blobs of an image, or of several. */
async function collect(
  repository: Repository,
  { references, platforms }: { references: readonly Reference[]; platforms: WarmOptions['platforms'] },
  { registry, signal }: Pulling,
): Promise<Content> {
  const blobs = new Map<Digest, Descriptor>();
  const manifests = new Set<Digest>();
  async function follow(reference: Reference): Promise<void> {
    const { bytes, descriptor } = await registry.manifest(repository, reference, { signal });
    if (manifests.has(descriptor.digest)) return;
    manifests.add(descriptor.digest);
    const content = parseManifest(bytes, descriptor.mediaType);
    for (const blob of content.blobs) blobs.set(blob.digest, blob);
    for (const { digest } of ofPlatforms(content.manifests, platforms)) await follow(digest);
  }
  for (const reference of references) await follow(reference);
  return { manifests: [...manifests], blobs };
}

/** The referrers of an image's manifests (the first is the one of its tag), and their referrers:
 *  clients look for both. */
async function findReferrers(repository: Repository, manifests: readonly Digest[], { registry, signal }: Pulling): Promise<Reference[]> {
  const found = new Set<Reference>();
  const subjects = new Set(manifests);
  for (const subject of subjects) {
    if (found.size >= MAX_REFERRERS) break;
    const { index } = await registry.referrers(repository, subject, { signal });
    for (const { digest } of parseManifest(index, OCI_INDEX).manifests) {
      found.add(digest);
      subjects.add(digest);
    }
  }
  const [root] = manifests;
  for (const tag of root === undefined ? [] : signatureTags(root)) {
    try {
      await registry.resolve(repository, tag, { signal });
      found.add(tag);
    } catch (error) {
      if (!isAbsent(error)) throw error;
    }
  }
  return [...found].slice(0, MAX_REFERRERS);
}

interface BlobToRead {
  repository: Repository;
  blob: Descriptor;
  advance(this: void, bytes: number): void;
}

/** @returns the bytes that were read; 0: the blob was stored already, or was read for another
 *  image */
async function readOnce(wanted: BlobToRead, from: Pulling): Promise<number> {
  const { digest, size } = wanted.blob;
  const { registry, isStored, signal, reading } = from;
  let bytes = 0;
  let ready = reading.get(digest);
  if (ready === undefined) {
    ready = isStored(digest, signal).then(async (stored) => {
      if (!stored) bytes = await read(wanted, from);
    });
    reading.set(digest, ready);
    ready.catch(() => reading.delete(digest)); // thrown below; the next image may try again
  }
  await ready;
  if (bytes > 0) return bytes;
  await registry.stat(wanted.repository, digest, { signal }); // records in the registry that this repository has it too
  wanted.advance(size);
  return 0;
}

async function read({ repository, blob: { digest }, advance }: BlobToRead, { registry, signal }: Pulling): Promise<number> {
  for (let attempt = 1; ; attempt++) {
    let bytes = 0;
    try {
      const { body } = await registry.blob(repository, digest, { signal });
      for await (const chunk of body) {
        bytes += chunk.length;
        advance(chunk.length);
      }
      return bytes;
    } catch (error) {
      signal.throwIfAborted();
      advance(-bytes);
      if (attempt === ATTEMPTS || !isOciError(error, 'UNAVAILABLE', 'TOOMANYREQUESTS')) throw error;
      await delay(Math.max(backoff(attempt, { baseMs: FIRST_PAUSE_MS }), 1000 * (error.retryAfter ?? 0)), undefined, { signal });
    }
  }
}
