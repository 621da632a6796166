import { SMALL_DOCUMENT_BYTES } from '../io/document.ts';
import { createExpiringCache } from '../io/expiring-cache.ts';
import { BLOB_MEDIA_TYPE, type Descriptor } from '../oci/descriptor.ts';
import { OciError } from '../oci/error.ts';
import { joinRepository, parseRepository, type Repository } from '../oci/reference.ts';
import type { Registry } from '../oci/registry.ts';
import { readBlob, type BlobsOptions } from './blobs.ts';
import { hasMirrors, type Cache, type Target, type Upstream } from './cache.ts';
import { asManifest, createManifestReader } from './manifest-reader.ts';
import { createManifests } from './manifests.ts';
import { createProofs } from './proofs.ts';
import { sharingPublicBlobs } from './public-blobs.ts';
import { createReferrerLists } from './referrer-lists.ts';
import { createReferences, headProves } from './references.ts';
import { renewedAccess } from './renewed-access.ts';
import { createRepublish } from './republish.ts';
import { listTags } from './tag-lists.ts';
import { REFUSED_LIFE_MS, type FreshnessPolicy } from './freshness.ts';

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

/** Descriptors from HEAD that are kept for each capability. */
const PRIVATE_ANNOUNCED = 1000;

/** Serves reads of `upstream` from `cache`. Missing content is fetched once for all requests that
 *  need it (promises 1 to 8, 12).
 *  @throws OciError as `upstream` does, if no cached content may be served */
export function cached(upstream: Upstream, shared: Cache, policy: CachePolicy): Registry {
  const prefix = prefixOf(policy);
  const targetOf = (repository: Repository): Target => ({ repository, name: joinRepository(prefix, repository) });
  const cache = { ...shared, ...proofsOf(upstream, shared, { ...policy, prefix }) };
  const { access, announced, metrics, storage, usage, log } = cache;
  const proofs = createProofs(upstream, cache, { untrusted: policy.untrusted ?? false });
  const manifests = createManifests(upstream, cache, proofs);
  const references = createReferences(upstream, cache, { manifests, policy });
  const manifestReader = createManifestReader(cache, { references, manifests });
  const blobs: BlobsOptions = { ...policy, upstream, cache, proofs };
  const listReferrers = createReferrerLists(upstream, cache, policy);
  const republish = createRepublish({ ...storage, access, log });

  return {
    async resolve(repository, reference, { signal, answered }) {
      const target = targetOf(repository);
      const recalled = manifestReader.recallDescriptor(target, reference);
      if (recalled !== undefined) {
        metrics.read(policy.name, 'manifest', 'hit');
        usage.mark(target.name, recalled.digest);
        return recalled;
      }
      const { digest, outcome } = await references.locate(target, reference, { method: 'HEAD', signal });
      const image = `${target.name}@${digest}`;
      const known = asManifest(await access.find(target.name, digest, signal)) ?? announced.get(image);
      const how = known === undefined ? 'miss' : outcome;
      metrics.read(policy.name, 'manifest', how);
      answered?.(how);
      const ask = (signal: AbortSignal) => upstream.registry.resolve(repository, digest, { signal });
      const descriptor = known ?? references.announce(target, await cache.describing(image, signal, ask));
      usage.mark(target.name, digest); // a node that has the image pulls it by HEAD alone
      return descriptor;
    },

    async manifest(repository, reference, { signal, answered }) {
      const target = targetOf(repository);
      const found = manifestReader.recall(target, reference) ?? (await manifestReader.read(target, reference, signal));
      const { descriptor, bytes, stale, outcome, isNoted } = found;
      const { digest } = descriptor;
      const isFirst = usage.mark(target.name, digest);
      metrics.read(policy.name, 'manifest', outcome);
      answered?.(outcome);
      if (!isNoted) await access.noteManifest(target.name, descriptor, bytes);
      if (isFirst && outcome !== 'miss') void republish(target.name, descriptor, bytes);
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
      if (headProves(upstream, policy)) access.grant(name, descriptor);
      return descriptor;
    },

    async blob(repository, digest, { range, signal, answered }) {
      const { blob, outcome } = await readBlob({ digest, target: targetOf(repository), range, signal }, blobs);
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

/** What proves access to the repositories of an upstream. Credentials that may be revoked prove it
 *  for an hour at most. */
function proofsOf(upstream: Upstream, cache: Cache, policy: CachePolicy & { prefix: string }): Pick<Cache, 'access' | 'announced'> {
  const { prefix, staleFor, tagTtl, capability, untrusted = false } = policy;
  if (capability === undefined) {
    const { access, publicBlobs, announced } = cache;
    return { announced, access: untrusted ? access : sharingPublicBlobs(access, publicBlobs, (name) => !policy.credentialed(name)) };
  }
  const repositoryOf = (name: Repository): Repository => parseRepository(name.slice(prefix.length + 1));
  const access = renewedAccess(cache.access, { upstream, repositoryOf, staleFor, quietMs: tagTtl });
  const announced = createExpiringCache<string, Descriptor>({ maxSize: PRIVATE_ANNOUNCED, sizeCalculation: () => 1, ttl: REFUSED_LIFE_MS });
  return { access, announced };
}
