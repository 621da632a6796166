import { LRUCache } from 'lru-cache';
import { createCache, type Cache, type Upstream } from '../../cache/cache.ts';
import { cached, prefixOf, type CachePolicy } from '../../cache/cached.ts';
import { noteReturned } from '../../cache/gone-tags.ts';
import { countGone } from '../../cache/tag-memory.ts';
import type { RegistryConfig } from '../../config/schema.ts';
import { upstreamNameOf } from '../../oci/capability.ts';
import { isPrivateComponent } from '../../oci/private-name.ts';
import type { Registry } from '../../oci/registry.ts';
import { createPeers, noPeers, type Peers } from '../../peers/peers.ts';
import type { Refusal } from '../../policy/guarded.ts';
import type { PullSecrets } from '../../pull-secrets/pull-secrets.ts';
import { observed } from '../../registry/observed.ts';
import { routed, type Route } from '../../registry/routed.ts';
import type { Authenticate } from '../../server/basic-auth.ts';
import type { RequestHandler } from '../../server/listen.ts';
import { tagKey } from '../../store/keys.ts';
import type { Log } from '../../telemetry/log.ts';
import type { RegistryMetrics } from '../../telemetry/registry-metrics.ts';
import { watchGone } from './gone.ts';
import type { HostedContext } from './hosted.ts';
import type { ImagesInside } from './images-inside.ts';
import { createMirrorLogins } from './mirror-logins.ts';
import { noHosted, type HostedRepositories } from './no-hosted.ts';
import type { HostUpstream } from './other-hosts.ts';
import { createGuard } from './policy.ts';
import { createPrivateNames, type PrivateNames } from './private-names.ts';
import { cachePolicyOf, createServedUpstreams, type ServedUpstreams } from './served-upstreams.ts';
import type { Storage } from './storage.ts';

export interface ImagesContext {
  env?: NodeJS.ProcessEnv;
  storage: Storage;
  log: Log;
  counts: RegistryMetrics;
  /** Called for each pull that registry.policy refuses. */
  refused?: (refusal: Refusal) => void;
  /** Undefined: no pull secrets are read. */
  secrets?: Pick<PullSecrets, 'credential' | 'isComplete'> | undefined;
}

export interface Images {
  inside: ImagesInside;
  /** The registry for clients. */
  images: Registry;
  /** The registry for other replicas: content that this replica has, or fetches itself. */
  local: Registry;
  /** As `images`, but without mirrors. */
  proofs: Registry;
  /** The images that this Authorization may read; undefined: it has no user and password. */
  imagesFor(this: void, login: string): Registry | undefined;
  peers: Peers;
  /** Answers requests for hosted repositories itself. */
  serveHosted(this: void, next: RequestHandler): RequestHandler;
  /** The same, for requests whose login `admits` accepts. */
  serveExposed(this: void, next: RequestHandler, admits: Authenticate): RequestHandler;
  /** Applies the retention rules of hosted repositories. */
  applyRetention(this: void, signal: AbortSignal): Promise<unknown>;
  close(this: void, signal: AbortSignal): Promise<void>;
}

/** An upstream as the cache serves it. */
type MakeCached = (upstream: Upstream, policy: CachePolicy) => Registry;

/** How many hosts of registry.otherHosts stay in memory. */
const MAX_HOST_ROUTES = 100;

/** images = routed({ name: observed(cached(upstream(name), storage and peers)), … }) */
export async function createImages(
  own: RegistryConfig,
  { storage, log, counts, secrets, refused, env = {} }: ImagesContext,
): Promise<Images> {
  const { spoolDirectory } = storage;
  const peers = own.peers === undefined ? noPeers : createPeers({ ...own.peers, own: own.listen, log, metrics: counts });
  const cache = await createCache({ storage, spoolDirectory, peers, metrics: counts, log });
  counts.watchGone(() => countGone(cache.tags));
  const endGone = watchGone({ memory: cache.tags, records: cache.records }, { store: storage.records, log });
  const upstreams = createServedUpstreams(own, { counts, log });
  const hosted = await openHosted(own, { storage, used: cache.usage.mark, env, log });
  const guard = createGuard(own, {
    storage,
    refused(refusal) {
      counts.denied(upstreamNameOf(refusal.repository), refusal.kind);
      refused?.(refusal);
    },
  });
  /** `name`: the name of the upstream; `prefix`: the prefix of its repositories. */
  const watched = (registry: Registry, name: string, prefix = name): Registry =>
    guard(
      observed(registry, (kind) => counts.read(name, kind, 'error')),
      prefix,
    );
  const hostedRoutes = Object.fromEntries(
    Object.entries(hosted.registries).map(([name, registry]) => [name, { registry: watched(registry, name) }]),
  );
  const privateReaders = {
    upstreamOf: upstreams.find,
    policyOf: (name: string, upstream: Pick<HostUpstream, 'config' | 'rateLimit' | 'untrusted'>): CachePolicy => ({
      ...cachePolicyOf(name, upstream, own.cache),
      credentialed: () => true,
    }),
    metrics: counts,
  };
  const privateNames = createPrivateNames({
    ...privateReaders,
    credentialOf: secrets?.credential ?? (() => undefined),
    isComplete: secrets?.isComplete ?? (() => true),
    unknown: counts.unknownPrivateName,
  });
  const routedBy = (make: MakeCached): Registry =>
    routeImages(own, {
      upstreams,
      privateNames,
      hosted: hostedRoutes,
      make: (upstream, policy) => watched(make(upstream, policy), policy.name, prefixOf(policy)),
    });
  return {
    inside: { ...insideOf(own, { cache, upstreams, hosted, storage }), policy: guard.policy, others: peers.others },
    imagesFor: createMirrorLogins({
      ...privateReaders,
      cache,
      hosted: hostedRoutes,
      cachedBy: (upstream, cache, policy) => watched(cached(upstream, cache, policy), policy.name, prefixOf(policy)),
    }),
    images: routedBy((upstream, policy) => cached(upstream, cache, policy)),
    local: routedBy((upstream, policy) => cached(upstream, { ...cache, peers: noPeers, servesPeers: true }, policy)),
    proofs: routedBy(({ origin }, policy) => cached({ registry: origin, origin }, cache, { ...policy, statIsProof: true })),
    peers,
    serveHosted: hosted.serve,
    serveExposed: hosted.serveExposed,
    applyRetention: hosted.applyRetention,
    async close(signal) {
      endGone();
      peers.close();
      cache.lateProofs.close();
      await cache.downloads.close(signal);
      await cache.records.flush(signal);
    },
  };
}

async function openHosted(own: RegistryConfig, context: HostedContext): Promise<HostedRepositories> {
  return Object.keys(own.hosted).length === 0 ? noHosted : (await import('./hosted.ts')).createHosted(own, context);
}

/** Every repository by its first component: an upstream, hosted repositories, a host of
 *  registry.otherHosts, or ids of pull secrets. */
function routeImages(
  own: RegistryConfig,
  {
    upstreams,
    privateNames,
    hosted,
    make,
  }: { upstreams: ServedUpstreams; privateNames: PrivateNames; hosted: Record<string, Route>; make: MakeCached },
): Registry {
  const hostRoutes = new LRUCache<string, Route>({ max: MAX_HOST_ROUTES });
  const privateRoute = privateNames.routesBy(make);
  const routeTo = (upstream: HostUpstream): Route => ({
    registry: make(upstream.upstream, cachePolicyOf(upstream.name, upstream, own.cache)),
    defaultNamespace: upstream.config.defaultNamespace,
  });
  const otherwise = (name: string): Route | undefined => {
    if (isPrivateComponent(name)) return privateRoute(name);
    const upstream = upstreams.findHost(name);
    if (upstream === undefined) return undefined;
    const known = hostRoutes.get(name);
    if (known !== undefined) return known;
    const route = routeTo(upstream);
    hostRoutes.set(name, route);
    return route;
  };
  const configured = Object.fromEntries(upstreams.configured.map((upstream) => [upstream.name, routeTo(upstream)]));
  return routed({ ...configured, ...hosted }, { otherwise, defaultName: own.defaultUpstream });
}

function insideOf(
  own: RegistryConfig,
  { cache, upstreams, hosted, storage }: { cache: Cache; upstreams: ServedUpstreams; hosted: HostedRepositories; storage: Storage },
): Pick<ImagesInside, 'downloads' | 'upstreamOf' | 'deleteTag'> {
  return {
    downloads: cache.downloads,
    upstreamOf(name) {
      const found = upstreams.find(name);
      if (found === undefined) return undefined;
      const { tagTtl } = own.upstreams[name] ?? own.cache;
      return { registry: found.upstream.registry, tagTtl };
    },
    async deleteTag(repository, tag, signal) {
      if (Object.hasOwn(own.hosted, repository.slice(0, repository.indexOf('/')))) return hosted.deleteTag(repository, tag, signal);
      const key = tagKey(repository, tag);
      cache.tags.cached.delete(key);
      noteReturned({ memory: cache.tags, records: cache.records }, key);
      cache.records.remove(key);
      await storage.records.remove(key, { signal });
    },
  };
}
