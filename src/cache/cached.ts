import { LRUCache } from 'lru-cache';
import { SMALL_DOCUMENT_BYTES } from '../io/document.ts';
import { BLOB_MEDIA_TYPE, type Descriptor } from '../oci/descriptor.ts';
import { isDigest, type Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import { joinRepository, parseRepository, type Reference, type Repository, type Tag } from '../oci/reference.ts';
import type { Manifest, Registry } from '../oci/registry.ts';
import { createBlobs } from './blobs.ts';
import { hasMirrors, type Cache, type Target, type Upstream } from './cache.ts';
import { createManifests } from './manifests.ts';
import { createProofs } from './proofs.ts';
import { createReferrerLists } from './referrer-lists.ts';
import { renewedAccess } from './renewed-access.ts';
import { createRepublish } from './republish.ts';
import { listTags } from './tag-lists.ts';
import { REFUSED_LIFE_MS, type FreshnessPolicy } from './freshness.ts';
import type { TagAnswer } from './tag-memory.ts';
import type { Question } from './tag-questions.ts';
import { createTags } from './tags.ts';

export interface CachePolicy extends FreshnessPolicy {
  /** The upstream's name, which is put before its repositories in the store. */
  name: string;
  /** Parallel connections for one blob. */
  connections: number;
  /** `by-<id>`, put before the upstream's name in the store: the upstream is read with the
   *  credentials that the id stands for. Its answers prove access for this capability alone, for an
   *  hour. */
  capability?: string;
  /** Anybody may run this upstream, so it may claim to have a blob in order to get the stored copy
   *  of another upstream. Only bytes that it has sent prove that it has a blob. */
  untrusted?: boolean;
  /** `stat` answers only for blobs that the repository may serve from the store. For an untrusted
   *  upstream these are the ones that have come from it. */
  statIsProof?: boolean;
}

/** The prefix of an upstream's repositories in the store. */
export function prefixOf({ name, capability }: Pick<CachePolicy, 'name' | 'capability'>): string {
  return capability === undefined ? name : `${capability}/${name}`;
}

/** The digest that a reference resolves to. */
interface Located extends TagAnswer {
  stale: boolean;
  /** For the metrics. */
  outcome: 'hit' | 'miss' | 'stale';
}

/** A cached manifest. */
type Found = Omit<Manifest, 'stale'>;

const HEAD_TIMEOUT_MS = 25_000;
/** Descriptors from HEAD that are kept for each capability. */
const PRIVATE_ANNOUNCED = 1000;

/** Serves reads of `upstream` from `cache`. Missing content is fetched once for all requests that
 *  need it (promises 1 to 8, 12).
 *  @throws OciError as `upstream` does, if no cached content may be served */
export function cached(upstream: Upstream, shared: Cache, policy: CachePolicy): Registry {
  const prefix = prefixOf(policy);
  const targetOf = (repository: Repository): Target => ({ repository, name: joinRepository(prefix, repository) });
  const cache = policy.capability === undefined ? shared : withExpiringProofs(upstream, shared, { ...policy, prefix });
  const { access, announced, metrics, storage, usage, log } = cache;
  const tags = createTags({ memory: cache.tags, records: cache.records, policy, log });
  const manifests = createManifests(upstream, cache);
  const proofs = createProofs(upstream, cache, { untrusted: policy.untrusted ?? false });
  /** Whether an answer to HEAD proves access. */
  const headProves = !hasMirrors(upstream) && policy.untrusted !== true;
  const blobs = createBlobs({ ...policy, upstream, cache, proofs });
  const listReferrers = createReferrerLists(upstream, cache, policy);
  const republish = createRepublish({ ...storage, access, log });

  /** Remembers the descriptor that a HEAD returned. If there are mirrors, it proves no access: it
   *  may come from one of them. Nor does it if the upstream is untrusted. */
  function announce({ name }: Target, descriptor: Descriptor): Descriptor {
    if (headProves) access.grant(name, descriptor);
    announced.set(`${name}@${descriptor.digest}`, descriptor);
    return descriptor;
  }

  async function headTag(target: Target, tag: Tag, signal: AbortSignal): Promise<TagAnswer> {
    const limit = AbortSignal.any([signal, AbortSignal.timeout(HEAD_TIMEOUT_MS)]);
    const descriptor = await upstream.registry.resolve(target.repository, tag, { signal: limit });
    return { digest: announce(target, descriptor).digest };
  }

  async function getTag(target: Target, tag: Tag, signal: AbortSignal): Promise<TagAnswer> {
    const manifest = await manifests.fetch(target, tag, signal);
    return { digest: manifest.descriptor.digest, manifest };
  }

  /** Asks by GET if the client wants the manifest and nothing is cached, else by HEAD. Where a GET
   *  counts as a pull, always by HEAD: the manifest may be cached under another tag, or another
   *  replica may be the one to fetch it. */
  function questionOf(target: Target, tag: Tag, method: 'GET' | 'HEAD'): Question {
    return {
      ask(known, signal) {
        const byHead = known || policy.rateLimit.countsPulls() || method === 'HEAD';
        return byHead ? headTag(target, tag, signal) : getTag(target, tag, signal);
      },
      async fetchManifest(digest, signal) {
        if ((await manifests.stored(digest, signal)) === undefined) await manifests.fetch(target, digest, signal);
      },
      isKept: (digest) => manifests.isKept(digest),
    };
  }

  async function resolveTag(target: Target, tag: Tag, { method, signal }: LocateOptions): Promise<Located> {
    const question = questionOf(target, tag, method);
    let isMiss = false;
    const ask = (known: boolean, signal: AbortSignal): Promise<TagAnswer> => {
      isMiss = !known;
      return question.ask(known, signal);
    };
    const answer = await tags.resolve(target.name, tag, { ...question, ask }, signal);
    return { ...answer, outcome: answer.stale ? 'stale' : isMiss ? 'miss' : 'hit' };
  }

  /** Without a promise where nothing has to be read: most requests are of this kind. */
  function locate(target: Target, reference: Reference, options: LocateOptions): Located | Promise<Located> {
    const digest = isDigest(reference) ? reference : tags.fresh(target.name, reference);
    return digest === undefined ? resolveTag(target, reference as Tag, options) : { digest, stale: false, outcome: 'hit' };
  }

  /** Finds a cached manifest that the repository may serve, as `locate` does without a promise if
   *  it is in memory. Otherwise its access record and its bytes are read at the same time. */
  function findManifest({ name }: Target, digest: Digest, signal: AbortSignal): Found | undefined | Promise<Found | undefined> {
    const record = access.recall(name, digest);
    const bytes = cache.manifests.get(digest);
    if (record !== undefined && bytes !== undefined) return foundManifest(digest, record, bytes);
    return Promise.all([access.find(name, digest, signal), manifests.stored(digest, signal)]).then((both) =>
      foundManifest(digest, ...both),
    );
  }

  return {
    async resolve(repository, reference, { signal, answered }) {
      const target = targetOf(repository);
      const { digest, outcome } = await locate(target, reference, { method: 'HEAD', signal });
      const image = `${target.name}@${digest}`;
      const known = asManifest(await access.find(target.name, digest, signal)) ?? announced.get(image);
      const how = known === undefined ? 'miss' : outcome;
      metrics.read(policy.name, 'manifest', how);
      answered?.(how);
      const ask = (signal: AbortSignal) => upstream.registry.resolve(repository, digest, { signal });
      const descriptor = known ?? announce(target, await cache.describing(image, signal, ask));
      usage.mark(target.name, digest); // a node that has the image pulls it by HEAD alone
      return descriptor;
    },

    async manifest(repository, reference, { signal, answered }) {
      const target = targetOf(repository);
      const { digest, stale, outcome, manifest } = await locate(target, reference, { method: 'GET', signal });
      const found = manifest ?? (await findManifest(target, digest, signal));
      const { descriptor, bytes } = found ?? (await manifests.fetch(target, digest, signal));
      const isFirst = usage.mark(target.name, digest);
      const how = found === undefined ? 'miss' : outcome;
      metrics.read(policy.name, 'manifest', how);
      answered?.(how);
      const noted = access.noteManifest(target.name, descriptor, bytes);
      if (noted !== undefined) await noted;
      if (isFirst && found !== undefined && outcome !== 'miss') void republish(target.name, descriptor, bytes);
      if (bytes.length <= SMALL_DOCUMENT_BYTES) return { descriptor, bytes, stale };
      return { descriptor, bytes, stale, open: ({ signal }) => cache.localBlobs.open(digest, { range: undefined, signal }) };
    },

    async stat(repository, digest, { signal }) {
      const { name } = targetOf(repository);
      const known = await access.find(name, digest, signal);
      if (known !== undefined) return { ...known, mediaType: BLOB_MEDIA_TYPE };
      if (policy.statIsProof === true && policy.untrusted === true) {
        throw new OciError('UNAVAILABLE', `${policy.name} has not sent ${digest} yet`, { origin: 'upstream' });
      }
      const ask = (signal: AbortSignal) => upstream.registry.stat(repository, digest, { signal });
      const descriptor = await cache.describing(`${name}@${digest}${hasMirrors(upstream) ? '?' : ' at its origin'}`, signal, ask);
      if (headProves) access.grant(name, descriptor);
      return descriptor;
    },

    async blob(repository, digest, { range, signal, answered }) {
      const { blob, outcome } = await blobs.read(digest, targetOf(repository), { range, signal });
      metrics.read(policy.name, 'blob', outcome);
      answered?.(outcome);
      return blob;
    },

    tags: (repository, context) => listTags({ ...policy, upstream, cache }, targetOf(repository), context),

    async referrers(repository, digest, context) {
      const { outcome, ...answer } = await listReferrers(targetOf(repository), digest, context);
      metrics.read(policy.name, 'referrers', outcome);
      return answer;
    },
  };
}

/** `cache` for credentials that may be revoked: a proof of access by them counts for an hour at
 *  most. */
function withExpiringProofs(upstream: Upstream, cache: Cache, { prefix, staleFor, tagTtl }: CachePolicy & { prefix: string }): Cache {
  const repositoryOf = (name: Repository): Repository => parseRepository(name.slice(prefix.length + 1));
  const access = renewedAccess(cache.access, { upstream, repositoryOf, staleFor, quietMs: tagTtl });
  const announced = new LRUCache<string, Descriptor>({ maxSize: PRIVATE_ANNOUNCED, sizeCalculation: () => 1, ttl: REFUSED_LIFE_MS });
  return { ...cache, access, announced };
}

interface LocateOptions {
  /** The method of the client's request. */
  method: 'GET' | 'HEAD';
  signal: AbortSignal;
}

function foundManifest(digest: Digest, record: Descriptor | undefined, bytes: Uint8Array | undefined): Found | undefined {
  const known = asManifest(record);
  if (known === undefined || bytes === undefined) return undefined;
  return { descriptor: { digest, mediaType: known.mediaType, size: bytes.length }, bytes };
}

/** Undefined for a descriptor of a blob: the content is no manifest, or one whose media type only
 *  the upstream knows. */
function asManifest(known: Descriptor | undefined): Descriptor | undefined {
  return known?.mediaType === BLOB_MEDIA_TYPE ? undefined : known;
}
