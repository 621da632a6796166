import { singleFlight } from '../async/single-flight.ts';
import { documentBytes, type ByteLease } from '../async/byte-budget.ts';
import { readWhole } from '../io/document.ts';
import { MAX_MANIFEST_SIZE } from '../oci/descriptor.ts';
import { digestInPieces, isDigest, splitDigest, type Digest } from '../oci/digest.ts';
import type { Reference } from '../oci/reference.ts';
import type { Manifest, Registry } from '../oci/registry.ts';
import { blobKey } from '../store/keys.ts';
import { bytesSource, type Store } from '../store/store.ts';
import type { Log } from '../telemetry/log.ts';
import type { Cache, Target, Upstream } from './cache.ts';
import type { Proofs } from './proofs.ts';

export interface Manifests {
  /** The bytes of a cached manifest: from memory, the local tier or the storage. */
  stored(digest: Digest, signal: AbortSignal): Promise<Uint8Array | undefined>;
  /** Whether the storage has the manifest. True if the storage cannot be asked. */
  isKept(digest: Digest): Promise<boolean>;
  /** Fetches and stores a manifest, once for all requests that wait for it.
   *  @throws OciError as the upstream does */
  fetch(target: Target, reference: Reference, signal: AbortSignal): Promise<Manifest>;
}

const READ_TIMEOUT_MS = 5000;
/** For all stores together. */
const STORED_TIMEOUT_MS = 15_000;
const KEEP_TIMEOUT_MS = 30_000;
/** Container runtimes run images of at most 127 layers; larger manifests would only cost memory. */
const MAX_IMAGE_BLOBS = 128;

interface Context {
  upstream: Upstream;
  cache: Cache;
  proofs: Proofs;
  /** In the order in which they are read. */
  stores: readonly Store[];
}

export function createManifests(upstream: Upstream, cache: Cache, proofs: Proofs): Manifests {
  const { local, remote } = cache.storage;
  const stores = remote === undefined ? [local] : [local, remote];
  const context: Context = { upstream, cache, proofs, stores };
  const reading = singleFlight<Uint8Array | undefined>({ timeoutMs: STORED_TIMEOUT_MS, lingerMs: 0 });

  return {
    async stored(digest, signal) {
      const remembered = cache.manifests.get(digest);
      if (remembered !== undefined) return remembered;
      return reading(digest, signal, (signal) => readFromStores(context, digest, signal));
    },

    async isKept(digest) {
      try {
        for (const store of stores) {
          const found = await store.stat(blobKey(digest), { signal: AbortSignal.timeout(READ_TIMEOUT_MS) });
          if (found !== undefined) return true;
        }
        return false;
      } catch {
        return true; // the store logs its own errors
      }
    },

    fetch(target, reference, signal) {
      const owner = isDigest(reference) ? cache.peers.ownerOf(reference) : undefined;
      const key = `${target.name}@${reference}${owner === undefined ? '' : ' of its owner'}`;
      return cache.fetching(key, signal, (signal) => fetchManifest(context, { target, reference, owner }, signal));
    },
  };
}

async function readFromStores({ stores, cache }: Context, digest: Digest, signal: AbortSignal): Promise<Uint8Array | undefined> {
  const lease = documentBytes.lease();
  try {
    for (const store of stores) {
      const bytes = await readVerified(store, digest, { log: cache.log, lease, signal });
      if (bytes === undefined) continue;
      cache.manifests.set(digest, bytes);
      return bytes;
    }
    return undefined;
  } finally {
    lease.release();
  }
}

async function readVerified(
  store: Store,
  digest: Digest,
  { log, lease, signal }: { log: Log; lease: ByteLease; signal: AbortSignal },
): Promise<Uint8Array | undefined> {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(READ_TIMEOUT_MS)]);
  try {
    const found = await store.read(blobKey(digest), { signal: limit });
    if (found === undefined) return undefined;
    const reserve = (bytes: number) => lease.reserve(bytes, signal);
    const bytes = await readWhole(found.body, { maxBytes: MAX_MANIFEST_SIZE, size: found.size, reserve });
    if (bytes === undefined) return undefined; // too large: a blob was requested as a manifest
    if ((await digestInPieces(bytes, splitDigest(digest).algorithm)) === digest) return bytes;
    log.error({ event: 'stored-manifest-damaged', digest }, 'a stored manifest is damaged; fetching it again');
    await store.remove(blobKey(digest), { signal: limit });
  } catch (error) {
    signal.throwIfAborted();
    log.warn({ event: 'stored-manifest-unreadable', digest, error }, 'cannot read a stored manifest; asking upstream');
  }
  return undefined;
}

/** A manifest requested by digest comes from the replica that owns the digest. A request that waits
 *  for another replica does not join one that asks upstream: that replica may itself be waiting for
 *  the latter. */
async function fetchManifest(
  context: Context,
  { target, reference, owner }: { target: Target; reference: Reference; owner: Registry | undefined },
  signal: AbortSignal,
): Promise<Manifest> {
  const { upstream, cache } = context;
  const lease = documentBytes.lease();
  const how = { signal, reserve: lease.reserve };
  try {
    const fromOwner = await owner?.manifest(target.name, reference, how).catch((error: unknown) => {
      const entry = { event: 'replica-manifest-failed', digest: reference, error };
      cache.log.debug(entry, 'another replica cannot serve a manifest; asking upstream');
    });
    const manifest = fromOwner ?? (await upstream.registry.manifest(target.repository, reference, how));
    await keep(context, target, { manifest, from: fromOwner === undefined ? 'upstream' : 'replica' });
    return manifest;
  } finally {
    lease.release();
  }
}

async function keep(
  { cache, proofs }: Context,
  target: Target,
  { manifest: { descriptor, bytes }, from }: { manifest: Manifest; from: 'upstream' | 'replica' },
): Promise<void> {
  const { access, storage, log } = cache;
  const { digest } = descriptor;
  access.grant(target.name, descriptor);
  const blobs = await access.noteManifest(target.name, descriptor, bytes);
  if (from === 'upstream' && blobs.length > 0 && blobs.length <= MAX_IMAGE_BLOBS)
    cache.lateProofs.note(target.name, (signal) => proofs.requireStored(target, blobs, signal));
  cache.manifests.set(digest, bytes);
  try {
    await storage.keep(digest, bytesSource(bytes), { from, signal: AbortSignal.timeout(KEEP_TIMEOUT_MS) });
    cache.localBlobs.trust(digest, bytes.length);
  } catch (error) {
    log.warn({ event: 'manifest-not-kept', digest, error }, 'could not store a manifest');
  }
}
