import { setTimeout as delay } from 'node:timers/promises';
import { parseManifest, type Descriptor } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import { isOciError, OciError } from '../oci/error.ts';
import { formatPlatform, matchesPlatform } from '../oci/platform.ts';
import type { Reference, Repository } from '../oci/reference.ts';
import type { Registry } from '../oci/registry.ts';
import { backoff } from '../async/backoff.ts';

export interface WarmOptions {
  /** `linux/amd64`, `linux/arm/v7`; or all that an index names. */
  platforms: readonly string[] | 'all';
  /** Whether a blob is already stored where it should be, so that it need not be read. */
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
}

const BLOBS_AT_ONCE = 3;
const ATTEMPTS = 3;
/** Milliseconds. */
const FIRST_PAUSE = 500;

/** Pulls images as a node would, and discards the bytes: the registry that it reads from stores them. Blobs that several images share are
 *  read once. */
export function createWarmer(registry: Registry, { platforms, isStored, signal }: WarmOptions) {
  const reading = new Map<Digest, Promise<void>>();

  /** @throws OciError as the registry does; MANIFEST_UNKNOWN: the index has none of the platforms */
  return async function warm(
    repository: Repository,
    reference: Reference,
    progress: (bytes: number, total: number) => void,
  ): Promise<Warmed> {
    const { manifests, blobs } = await collect(repository, reference);
    const warmed: Warmed = { manifests, blobs: blobs.size, known: 0, bytes: 0 };
    const total = [...blobs.values()].reduce((sum, { size }) => sum + size, 0);
    let done = 0;
    const advance = (bytes: number): void => progress((done += bytes), total);
    const queue = [...blobs.values()];
    async function worker(): Promise<void> {
      for (let blob = queue.shift(); blob !== undefined; blob = queue.shift()) {
        const bytes = await readOnce(repository, blob, advance);
        if (bytes === 0) warmed.known++;
        warmed.bytes += bytes;
      }
    }
    await Promise.all(Array.from({ length: BLOBS_AT_ONCE }, worker));
    return warmed;
  };

  async function collect(repository: Repository, reference: Reference): Promise<{ manifests: number; blobs: Map<Digest, Descriptor> }> {
    const blobs = new Map<Digest, Descriptor>();
    let manifests = 0;
    async function follow(reference: Reference): Promise<void> {
      const { bytes, descriptor } = await registry.manifest(repository, reference, { signal });
      manifests++;
      const content = parseManifest(bytes, descriptor.mediaType);
      for (const blob of content.blobs) blobs.set(blob.digest, blob);
      if (content.manifests.length === 0) return;
      const wanted = content.manifests.filter(
        ({ platform }) => platforms === 'all' || platforms.some((one) => matchesPlatform(platform, one)),
      );
      if (wanted.length === 0) {
        const there = content.manifests.map(({ platform }) => formatPlatform(platform)).filter((name) => name !== '');
        throw new OciError(
          'MANIFEST_UNKNOWN',
          `it has no ${String(platforms)}, only ${there.join(', ') || 'manifests without a platform'}`,
        );
      }
      for (const { digest } of wanted) await follow(digest);
    }
    await follow(reference);
    return { manifests, blobs };
  }

  /** @returns the bytes that were read; 0: the blob was stored already, or was read for another image */
  async function readOnce(repository: Repository, blob: Descriptor, advance: (bytes: number) => void): Promise<number> {
    const { digest, size } = blob;
    let bytes = 0;
    let ready = reading.get(digest);
    if (ready === undefined) {
      ready = isStored(digest, signal).then(async (stored) => {
        if (!stored) bytes = await read(repository, blob, advance);
      });
      reading.set(digest, ready);
      ready.catch(() => reading.delete(digest)); // thrown below; the next image may try again
    }
    await ready;
    if (bytes > 0) return bytes;
    await registry.stat(repository, digest, { signal }); // records in the registry that this repository has it too
    advance(size);
    return 0;
  }

  async function read(repository: Repository, { digest }: Descriptor, advance: (bytes: number) => void): Promise<number> {
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
        await delay(Math.max(backoff(attempt, { baseMs: FIRST_PAUSE }), 1000 * (error.retryAfter ?? 0)), undefined, { signal });
      }
    }
  }
}
