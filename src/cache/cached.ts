import { LRUCache } from 'lru-cache';
import { BLOB_MEDIA_TYPE, MAX_MANIFEST_SIZE, type Descriptor } from '../oci/descriptor.ts';
import { digestOf, isDigest, splitDigest, type Digest } from '../oci/digest.ts';
import { isAbsent, OciError } from '../oci/error.ts';
import { isTag, joinRepository, type Reference, type Repository, type Tag } from '../oci/reference.ts';
import type { ByteRange } from '../oci/range.ts';
import type { Context, Manifest, Registry } from '../oci/registry.ts';
import { blobKey, tagKey } from '../store/keys.ts';
import { bytesSource, type Store, type StoreSource } from '../store/store.ts';
import { readAll } from '../io/body.ts';
import type { Log } from '../telemetry/log.ts';
import type { RegistryMetrics } from '../telemetry/registry-metrics.ts';
import { singleFlight } from '../async/single-flight.ts';
import type { Fills, Keeping } from '../download/downloads.ts';
import type { Membership } from './access.ts';
import type { Peers } from '../peers/peers.ts';
import type { Records } from './record-store.ts';
import { createRestore } from './republish.ts';
import { createTags, type TagPolicy } from './tags.ts';

/** What all upstreams of a registry share. */
export interface Cache {
  fills: Fills;
  members: Membership;
  records: Records;
  /** Manifests in memory, by digest. */
  manifests: LRUCache<Digest, Uint8Array>;
  local: Store;
  /** The storage behind the local tier, when there is one. */
  remote: Store | undefined;
  keep(digest: Digest, source: StoreSource, how: Keeping): Promise<void>;
  arrived(digest: Digest, size: number, from: 'upstream' | 'replica'): void;
  /** Who fetches what, among replicas. */
  peers: Pick<Peers, 'ownerOf'>;
  /** This image was pulled now. True: for the first time today. */
  used(repository: Repository, digest: Digest): boolean;
  metrics: Pick<RegistryMetrics, 'read'>;
  log: Log;
}

export interface CachePolicy extends TagPolicy {
  /** The upstream's name, which its repositories have in front in the store. */
  name: string;
  connections: number;
}

/** Bytes of manifests that stay in memory. */
const MANIFESTS_IN_MEMORY = 32 * 2 ** 20;
const FLIGHT_LIMIT = 25_000;
const DISTRUSTED = 1000;
/** Of questions that go on when those who asked have left; FLIGHT_LIMIT ends them. */
const UNHURRIED = new AbortController().signal;

export function createManifestMemory(): LRUCache<Digest, Uint8Array> {
  return new LRUCache({ maxSize: MANIFESTS_IN_MEMORY, sizeCalculation: (bytes) => Math.max(1, bytes.length) });
}

/** Serves `inner`'s reads from what is kept; what is missing is fetched once for all who ask (promises 1 to 8, 12).
 *  @throws OciError as `inner` does, when nothing is known that may be served */
export function cached(inner: Registry, cache: Cache, policy: CachePolicy): Registry {
  const { fills, members, records, manifests, log } = cache;
  const tags = createTags(records, policy, log);
  const share = singleFlight<Descriptor>({ timeoutMs: FLIGHT_LIMIT });
  /** Blobs that came with wrong bytes: the next attempt asks no mirror and no other replica. */
  const distrusted = new LRUCache<Digest, true>({ maxSize: DISTRUSTED, sizeCalculation: () => 1 });
  const restore = createRestore(cache);
  const full = (repository: Repository): Repository => joinRepository(policy.name, repository);

  /** Bytes of a manifest from wherever they are nearest, by their digest. */
  async function kept(digest: Digest, signal: AbortSignal): Promise<Uint8Array | undefined> {
    const remembered = manifests.get(digest);
    if (remembered !== undefined) return remembered;
    for (const store of cache.remote === undefined ? [cache.local] : [cache.local, cache.remote]) {
      const bytes = await readVerified(store, digest, signal);
      if (bytes === undefined) continue;
      manifests.set(digest, bytes);
      return bytes;
    }
    return undefined;
  }

  async function readVerified(store: Store, digest: Digest, signal: AbortSignal): Promise<Uint8Array | undefined> {
    const limit = AbortSignal.any([signal, AbortSignal.timeout(5000)]);
    try {
      const found = await store.read(blobKey(digest), { signal: limit });
      if (found === undefined || found.size > MAX_MANIFEST_SIZE) return undefined;
      const bytes = await readAll(found.body, MAX_MANIFEST_SIZE);
      if (bytes !== undefined && digestOf(bytes, splitDigest(digest).algorithm) === digest) return bytes;
      log.error({ digest }, 'a stored manifest has wrong bytes; it is fetched again');
      await store.remove(blobKey(digest), { signal: limit });
    } catch (error) {
      signal.throwIfAborted();
      log.warn({ error, digest }, 'a stored manifest cannot be read; upstream is asked');
    }
    return undefined;
  }

  async function keep(repository: Repository, { descriptor, bytes }: Manifest, from: 'upstream' | 'replica'): Promise<void> {
    const { digest } = descriptor;
    members.add(full(repository), descriptor);
    manifests.set(digest, bytes);
    try {
      await cache.keep(digest, bytesSource(bytes), { from, signal: AbortSignal.timeout(30_000) });
    } catch (error) {
      log.warn({ error, digest }, 'a manifest could not be kept');
    }
  }

  /** Fetches a manifest once for all who wait, and keeps it: by its digest from the replica that fetches it for all. Who waits for another
   *  replica waits apart from who asks upstream: that replica may be among the latter. */
  function fetch(repository: Repository, reference: Reference, { signal, hop = false }: Context): Promise<Descriptor> {
    const owner = hop || !isDigest(reference) ? undefined : cache.peers.ownerOf(reference);
    return share(`${repository}@${reference}${owner === undefined ? '' : ' of its owner'}`, signal, async (signal) => {
      const given = await owner?.manifest(full(repository), reference, { signal }).catch((error: unknown) => {
        log.debug({ error, digest: reference }, 'another replica cannot give a manifest; it comes from upstream');
      });
      const manifest = given ?? (await inner.manifest(repository, reference, { signal }));
      await keep(repository, manifest, given === undefined ? 'upstream' : 'replica');
      return manifest.descriptor;
    });
  }

  /** Fetches a manifest that is nowhere here. */
  async function bring(repository: Repository, digest: Digest): Promise<void> {
    if ((await kept(digest, UNHURRIED)) === undefined) await fetch(repository, digest, { signal: UNHURRIED });
  }

  /** Asks upstream what a tag means: by GET when the manifest is wanted and nothing is known, else by HEAD; by HEAD alone where a GET counts as a pull,
   *  since the manifest may be here under another tag, or may be another replica's to get. */
  async function ask(repository: Repository, tag: Tag, method: 'GET' | 'HEAD'): Promise<Digest> {
    if (method === 'GET') return (await fetch(repository, tag, { signal: UNHURRIED })).digest;
    const descriptor = await inner.resolve(repository, tag, { signal: AbortSignal.timeout(FLIGHT_LIMIT) });
    members.add(full(repository), descriptor);
    return descriptor.digest;
  }

  async function locate(repository: Repository, reference: Reference, context: Context & { method: 'GET' | 'HEAD' }) {
    if (isDigest(reference)) return { digest: reference, stale: false, outcome: 'hit' as const };
    let asked = false;
    const { digest, stale } = await tags.resolve(
      full(repository),
      reference,
      {
        ask(known) {
          asked = !known;
          return ask(repository, reference, known || policy.rateLimit.countsPulls() ? 'HEAD' : context.method);
        },
        bring: (digest) => bring(repository, digest),
      },
      context.signal,
    );
    return { digest, stale, outcome: stale ? ('stale' as const) : asked ? ('miss' as const) : ('hit' as const) };
  }

  async function blobProof(repository: Repository, digest: Digest, context: Context): Promise<void> {
    const name = full(repository);
    if ((await members.find(name, digest, context.signal)) !== undefined) return;
    const { signal } = context;
    await share(`${repository}@${digest}?`, signal, async (signal) => {
      const descriptor = await inner.stat(repository, digest, { ...context, signal });
      members.add(name, descriptor);
      return descriptor;
    });
  }

  return {
    async resolve(repository, reference, context) {
      const { digest, outcome } = await locate(repository, reference, { ...context, method: 'HEAD' });
      const known = asManifest(await members.find(full(repository), digest, context.signal));
      if (known !== undefined) {
        cache.metrics.read(policy.name, 'manifest', outcome);
        return known;
      }
      const descriptor = await share(`${repository}@${digest}!`, context.signal, (signal) =>
        inner.resolve(repository, digest, { ...context, signal }),
      );
      cache.metrics.read(policy.name, 'manifest', 'miss');
      members.add(full(repository), descriptor);
      return descriptor;
    },

    async manifest(repository, reference, context) {
      const { digest, stale, outcome } = await locate(repository, reference, { ...context, method: 'GET' });
      const known = asManifest(await members.find(full(repository), digest, context.signal));
      const bytes = known === undefined ? undefined : await kept(digest, context.signal);
      if (known !== undefined && bytes !== undefined) {
        cache.metrics.read(policy.name, 'manifest', outcome);
        const descriptor = { ...known, size: bytes.length };
        const first = cache.used(full(repository), digest);
        if (first && outcome !== 'miss') void restore(full(repository), descriptor, bytes);
        return { descriptor, bytes, stale };
      }
      const descriptor = await fetch(repository, digest, context);
      const fetched = await kept(digest, context.signal);
      if (fetched === undefined) throw new OciError('UNAVAILABLE', `${digest} was fetched but is gone already`, { origin: 'storage' });
      cache.metrics.read(policy.name, 'manifest', 'miss');
      cache.used(full(repository), digest);
      return { descriptor, bytes: fetched, stale };
    },

    async stat(repository, digest, context) {
      const known = await members.find(full(repository), digest, context.signal);
      if (known !== undefined) return { ...known, mediaType: BLOB_MEDIA_TYPE };
      const descriptor = await share(`${repository}@${digest}?`, context.signal, (signal) =>
        inner.stat(repository, digest, { ...context, signal }),
      );
      members.add(full(repository), descriptor);
      return descriptor;
    },

    async blob(repository, digest, { range, signal, ...rest }) {
      const name = full(repository);
      const member = (size: number) => members.add(name, { digest, mediaType: BLOB_MEDIA_TYPE, size });
      /** Whoever gives a blob under a name says that the name may have it. */
      const from = (registry: Registry, name: Repository) => async (range: ByteRange | undefined, signal: AbortSignal) => {
        const own = distrusted.get(digest) === true ? { mirrors: false } : {};
        const source = await registry.blob(name, digest, { ...rest, ...own, signal, ...(range === undefined ? {} : { range }) });
        if (source.size !== undefined) member(source.size);
        return source;
      };
      const { blob, outcome } = await fills.open(digest, {
        signal,
        hop: rest.hop === true,
        ...(range === undefined ? {} : { range }),
        connections: policy.connections,
        upstream: policy.name,
        repository: name,
        foresee: () => void members.find(name, digest, signal).catch(() => undefined), // the proof asks again, and tells
        proof: () => blobProof(repository, digest, { ...rest, signal }),
        source: from(inner, repository),
        replica() {
          const owner = rest.hop === true || distrusted.get(digest) === true ? undefined : cache.peers.ownerOf(digest);
          return owner === undefined ? undefined : from(owner, name);
        },
        fetched: member,
        corrupt: () => distrusted.set(digest, true),
      });
      cache.metrics.read(policy.name, 'blob', outcome === 'miss' ? 'miss' : 'hit');
      return blob;
    },

    async *tags(repository, context) {
      const { last, signal } = context;
      let begun = false;
      try {
        for await (const tag of inner.tags(repository, context)) {
          begun = true;
          yield tag;
        }
        cache.metrics.read(policy.name, 'tags', 'miss');
      } catch (error) {
        if (begun || isAbsent(error) || signal.aborted) throw error; // a list that ends in the middle looks like a whole one
        const store = cache.remote ?? cache.local;
        const prefix = tagKey(full(repository), '' as Tag);
        let found = false;
        for await (const { key } of store.list(prefix, { signal, ...(last === undefined ? {} : { after: prefix + last }) })) {
          const tag = key.slice(prefix.length);
          found = true;
          if (isTag(tag)) yield tag;
        }
        if (!found) throw error;
        cache.metrics.read(policy.name, 'tags', 'stale');
        log.warn({ error, repository: full(repository) }, 'upstream cannot list tags: the ones that were pulled are listed');
      }
    },

    async referrers(repository, digest, context) {
      const answer = await inner.referrers(repository, digest, context);
      cache.metrics.read(policy.name, 'referrers', 'miss');
      return answer;
    },
  };
}

/** What came as a blob is no manifest, or one of an unknown type: upstream says which. */
function asManifest(known: Descriptor | undefined): Descriptor | undefined {
  return known?.mediaType === BLOB_MEDIA_TYPE ? undefined : known;
}
