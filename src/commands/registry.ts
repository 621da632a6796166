import { once } from 'node:events';
import { LRUCache } from 'lru-cache';
import { setFlagsFromString } from 'node:v8';
import { requireFiles } from '../config/load.ts';
import { readsPullSecrets, type Config, type RegistryConfig, type Upstream as UpstreamConfig } from '../config/schema.ts';
import { upstreamNameOf, withoutCapability } from '../oci/capability.ts';
import { isDigest } from '../oci/digest.ts';
import { isPrivateComponent } from '../oci/private-name.ts';
import type { Repository } from '../oci/reference.ts';
import type { Registry } from '../oci/registry.ts';
import type { Refusal } from '../policy/guarded.ts';
import { tagKey } from '../store/keys.ts';
import { createRateLimit, type RateLimit } from '../upstream/rate-limit.ts';
import { createCache, type Upstream } from '../cache/cache.ts';
import { countGone } from '../cache/tag-memory.ts';
import { cached, prefixOf, type CachePolicy } from '../cache/cached.ts';
import { observed } from '../registry/observed.ts';
import { isFromPeer } from '../peers/peer.ts';
import { createPeers, noPeers, type Peers } from '../peers/peers.ts';
import { routed, type Route } from '../registry/routed.ts';
import { reportRawSockets } from '../http/raw/raw.ts';
import { createAccessLog } from '../server/access-log.ts';
import { serveAdmin } from '../server/admin.ts';
import { createBasicAuth, type Authenticate } from '../server/basic-auth.ts';
import { listen, type Listener, type ListenOptions, type RequestHandler } from '../server/listen.ts';
import { lazyFileSender } from '../server/send-file.ts';
import { takeLogin } from '../server/mirror-login.ts';
import { serveRegistry, type ServeOptions } from '../server/serve-registry.ts';
import { followTls, loadTls } from '../server/tls.ts';
import type { PullSecrets } from '../pull-secrets/pull-secrets.ts';
import { createMetrics } from '../telemetry/metrics.ts';
import { createRegistryMetrics, type RegistryMetrics } from '../telemetry/registry-metrics.ts';
import { pruneRegularly } from '../upkeep/schedule.ts';
import type { Host } from './command.ts';
import { openConsole } from './wiring/console.ts';
import { createKeepOf } from './wiring/keep.ts';
import type { ImagesInside } from './wiring/images-inside.ts';
import { createObservation } from './wiring/observation.ts';
import { createGuard } from './wiring/policy.ts';
import { pruneLimits, pruneTiming } from './wiring/prune-limits.ts';
import { createHosted } from './wiring/hosted.ts';
import { createMirrorLogins } from './wiring/mirror-logins.ts';
import { countPodImages } from './wiring/pod-images.ts';
import { createPrivateNames } from './wiring/private-names.ts';
import type { PrivateUpstream } from './wiring/private-upstreams.ts';
import type { PullSecretsContext } from './wiring/pull-secrets.ts';
import { placementOf } from './wiring/placement.ts';
import { openStorage, type Storage } from './wiring/storage.ts';
import { createHostUpstreams } from './wiring/other-hosts.ts';
import { servedNames } from './wiring/served-names.ts';
import { createConnections, createUpstream, reportUpstreams } from './wiring/upstreams.ts';
import { warmOnSchedule } from './wiring/warm.ts';

/** How long running pulls may continue after SIGTERM, in ms. */
const GRACE = 30_000;
/** How many hosts of registry.otherHosts stay in memory. */
const MAX_HOST_ROUTES = 100;
/** The time limit for a request's body, if pushes are accepted. */
const PUSH_LIMIT_MS = 24 * 3_600_000;

/** `kube-registry registry`: serves until SIGTERM.
 *  @throws ConfigError: a file that it names cannot be read; OciError UNAVAILABLE: an address or a
 *  directory cannot be used */
export async function registry(host: Host): Promise<void> {
  const { config, log, stop, env } = host;
  const own = config.registry;
  await requireFiles(own, 'registry');
  reportUpstreams(own.upstreams, log);
  void reportRawSockets(log);
  const metrics = await createMetrics();
  const observation = createObservation();
  const registryMetrics = createRegistryMetrics(metrics);
  const counts = own.console.enabled ? observation.metrics(registryMetrics) : registryMetrics;
  const storage = await openStorage(own, { log, metrics: counts });
  const secrets = await openSecrets(config, { env, metrics, log, signal: stop });
  const { images, local, proofs, peers, imagesFor, inside, serveHosted, serveExposed, applyRetention, close } = await createImages(own, {
    storage,
    log,
    counts,
    secrets,
    refused: ({ repository, reference, rule }) =>
      observation.refusals.add({ image: `${withoutCapability(repository)}${isDigest(reference) ? '@' : ':'}${reference}`, rule }),
    env,
  });
  const accessLog = own.accessLog ? createAccessLog({ log }) : undefined;
  const serving: ServeOptions = {
    log,
    ...servedNames(own),
    fileSender: lazyFileSender(),
    observe: ({ upstream, kind, status, bytes }) => counts.answered(upstream, { kind, status, bytes }),
  };
  const forClients: ServeOptions = {
    ...serving,
    accessLog,
    observe(served) {
      serving.observe?.(served);
      if (own.console.enabled) observation.served(served);
    },
  };
  const placement = placementOf({ proofs, peers, storage, log, metrics: counts });
  const toClients = serveRegistry(images, { ...forClients, redirect: placement.forClient });
  const toReplicas = serveRegistry(local, { ...serving, redirect: placement.forReplica });
  const unguarded: RequestHandler = (request, response) => {
    const fromPeer = isFromPeer(request.headers);
    placement.hear(request.headers, fromPeer);
    return (fromPeer ? toReplicas : toClients)(request, response);
  };
  const handler = withMirrorLogins(serveHosted(unguarded), {
    imagesFor,
    serve: (images) => serveHosted(serveRegistry(images, forClients)),
  });

  // A push may take long: its body is limited in bytes, not in time.
  const limits = Object.keys(own.hosted).length === 0 ? {} : { request: PUSH_LIMIT_MS };

  const listeners: Listener[] = [await listen({ address: own.listen, handler, log, limits })];
  if (own.exposed !== undefined)
    listeners.push(await listenExposed(own.exposed, { guard: (admits) => serveExposed(unguarded, admits), log, limits, stop }));
  const consoled = own.console.enabled ? await openConsole(host, { images, inside, storage, observation }) : undefined;
  const admin = serveAdmin({
    ...(consoled === undefined ? {} : { consoleAt: consoled.at }),
    ready: () => !stop.aborted,
    metrics: () => metrics.render(),
    status: () =>
      Promise.resolve({
        upstreams: Object.fromEntries(Object.entries(own.upstreams).map(([name, { url }]) => [name, url])),
        ...storage.status(),
      }),
  });
  const adminListener = await listen({ address: own.admin, handler: admin, log });
  const consoleAddress = own.console.listen;
  const outside =
    consoleAddress === undefined || consoled === undefined
      ? undefined
      : await listen({ address: consoleAddress, handler: consoled.exposed, log });
  // In memory saver mode, V8 collects the garbage of downloads at half the heap size. It also
  // changes the compile cache's folder, which no longer matters now that all code is compiled.
  setFlagsFromString('--memory-saver-mode');
  log.info(
    { event: 'registry-ready', listen: listeners[0]?.url, admin: adminListener.url, storage: storage.kind },
    'the registry is ready',
  );
  const pruning = pruneRegularly({
    store: storage.records,
    limits: pruneLimits(own),
    maxShare: own.cache.maxPruneShare,
    keep: createKeepOf(config, { env, store: storage.records }),
    ...(secrets === undefined ? {} : { isAbandoned: secrets.isAbandoned }),
    before: applyRetention,
    timing: pruneTiming(own),
    log,
    metrics: counts,
    stop,
  });

  const warming = warmOnSchedule(host, { images, storage, metrics: counts });
  const counting = countPodImages(host, metrics);

  if (!stop.aborted) await once(stop, 'abort');
  log.info({ event: 'registry-stopping' }, 'stopping; waiting for running pulls to finish');
  const deadline = AbortSignal.timeout(GRACE);
  await Promise.all(listeners.map((listener) => listener.drain(GRACE)));
  await close(deadline);
  accessLog?.close();
  await Promise.all([pruning, warming, counting]);
  await storage.close(deadline);
  await consoled?.close();
  await outside?.close();
  await adminListener.close();
}

/** The pull secrets whose ids give access to private images. Waits a short time for the first
 *  list. */
async function openSecrets(
  { pullSecrets }: Config,
  { env, ...context }: Omit<PullSecretsContext, 'kubernetes' | 'keepsPasswords'> & { env: NodeJS.ProcessEnv },
): Promise<(PullSecrets & { isAbandoned(this: void, repository: Repository): boolean }) | undefined> {
  if (!readsPullSecrets(pullSecrets)) return undefined;
  await requireFiles(pullSecrets, 'pullSecrets');
  const [{ connectKubernetes }, { openPullSecrets, whenListed, isAbandonedBy }] = await Promise.all([
    import('../kubernetes/client.ts'),
    import('./wiring/pull-secrets.ts'),
  ]);
  const secrets = await openPullSecrets(pullSecrets, { ...context, kubernetes: await connectKubernetes(env), keepsPasswords: true });
  await whenListed(secrets);
  return { ...secrets, isAbandoned: isAbandonedBy(secrets) };
}

/** Serves requests with a login that an agent has passed on: upstream images as that login may read
 *  them, and hosted repositories if it is that of a user or a ServiceAccount. */
function withMirrorLogins(
  next: RequestHandler,
  { imagesFor, serve }: Pick<Images, 'imagesFor'> & { serve(this: void, images: Registry): RequestHandler },
): RequestHandler {
  const handlers = new WeakMap<Registry, RequestHandler>();
  return (request, response) => {
    const login = takeLogin(request);
    const reading = login === undefined || isFromPeer(request.headers) ? undefined : imagesFor(login);
    if (reading === undefined) return next(request, response);
    request.headers.authorization = login;
    const handler = handlers.get(reading) ?? serve(reading);
    handlers.set(reading, handler);
    return handler(request, response);
  };
}

interface ImagesContext {
  env?: NodeJS.ProcessEnv;
  storage: Storage;
  log: Host['log'];
  counts: RegistryMetrics;
  /** Called for each pull that registry.policy refuses. */
  refused?: (refusal: Refusal) => void;
  /** Undefined: no pull secrets are read. */
  secrets?: Pick<PullSecrets, 'credential' | 'isComplete'> | undefined;
}

interface Images {
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
  applyRetention(this: void, signal: AbortSignal): Promise<void>;
  close(this: void, signal: AbortSignal): Promise<void>;
}

/** images = routed({ name: observed(cached(upstream(name), storage and peers)), … }) */
export async function createImages(
  own: RegistryConfig,
  { storage, log, counts, secrets, refused, env = {} }: ImagesContext,
): Promise<Images> {
  const { spoolDirectory } = storage;
  const peers = own.peers === undefined ? noPeers : createPeers({ ...own.peers, own: own.listen, log, metrics: counts });
  const cache = await createCache({ storage, spoolDirectory, peers, metrics: counts, log });
  counts.watchGone(() => countGone(cache.tags));
  const routes = Object.entries(own.upstreams).map(([name, config]) => {
    const policy = policyOf(name, config, { cache: own.cache, rateLimit: createRateLimit(name, counts) });
    const connections = createConnections(config);
    const upstream = createUpstream(name, config, { metrics: counts, rateLimit: policy.rateLimit, connections, log });
    return { name, config, upstream, policy, connections, defaultNamespace: config.defaultNamespace };
  });
  const byName = new Map(routes.map((route) => [route.name, route]));
  const hostUpstream = createHostUpstreams(own, { metrics: counts, createRateLimit: (name) => createRateLimit(name, counts) });
  const { registries, serve, serveExposed, applyRetention, deleteTag } = await createHosted(own, {
    storage,
    used: cache.usage.mark,
    env,
    log,
  });
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
  const hosted = Object.fromEntries(Object.entries(registries).map(([name, registry]) => [name, { registry: watched(registry, name) }]));
  const privateReaders = {
    upstreamOf: (name: string) => byName.get(name) ?? hostUpstream(name),
    policyOf: (name: string, { config, rateLimit, untrusted }: PrivateUpstream) =>
      policyOf(name, config, { cache: own.cache, rateLimit, untrusted, credentialed: () => true }),
    metrics: counts,
  };
  const privateNames = createPrivateNames({
    ...privateReaders,
    credentialOf: secrets?.credential ?? (() => undefined),
    isComplete: secrets?.isComplete ?? (() => true),
    unknown: counts.unknownPrivateName,
  });
  const routedBy = (make: (upstream: Upstream, policy: CachePolicy) => Registry): Registry => {
    const registryOf = ({ upstream, policy, name }: Pick<(typeof routes)[number], 'upstream' | 'policy' | 'name'>): Registry =>
      watched(make(upstream, policy), name);
    const otherHosts = new LRUCache<string, Route>({ max: MAX_HOST_ROUTES });
    const privateRoute = privateNames.routesBy((upstream, policy) => watched(make(upstream, policy), policy.name, prefixOf(policy)));
    const otherwise = (name: string): Route | undefined => {
      if (isPrivateComponent(name)) return privateRoute(name);
      const host = hostUpstream(name);
      if (host === undefined) return undefined;
      const known = otherHosts.get(name);
      if (known !== undefined) return known;
      const policy = policyOf(name, host.config, { cache: own.cache, rateLimit: host.rateLimit, untrusted: host.untrusted });
      const route = { registry: registryOf({ name, upstream: host.upstream, policy }) };
      otherHosts.set(name, route);
      return route;
    };
    const named = routes.map((route) => [route.name, { ...route, registry: registryOf(route) }] as const);
    return routed({ ...Object.fromEntries(named), ...hosted }, { otherwise, defaultName: own.defaultUpstream });
  };
  const imagesFor = createMirrorLogins({
    ...privateReaders,
    cache,
    hosted,
    cachedBy: (upstream, cache, policy) => watched(cached(upstream, cache, policy), policy.name, prefixOf(policy)),
  });
  const inside: ImagesInside = {
    downloads: cache.downloads,
    policy: guard.policy,
    others: peers.others,
    upstreamOf(name) {
      const found = routes.find((route) => route.name === name) ?? hostUpstream(name);
      if (found === undefined) return undefined;
      const { tagTtl } = own.upstreams[name] ?? own.cache;
      return { registry: found.upstream.registry, tagTtl };
    },
    async deleteTag(repository, tag, signal) {
      if (Object.hasOwn(own.hosted, repository.slice(0, repository.indexOf('/')))) return deleteTag(repository, tag, signal);
      const key = tagKey(repository, tag);
      cache.tags.cached.delete(key);
      cache.records.remove(key);
      await storage.records.remove(key, { signal });
    },
  };
  return {
    inside,
    imagesFor,
    images: routedBy((upstream, policy) => cached(upstream, cache, policy)),
    local: routedBy((upstream, policy) => cached(upstream, { ...cache, peers: noPeers, servesPeers: true }, policy)),
    proofs: routedBy(({ origin }, policy) => cached({ registry: origin, origin }, cache, { ...policy, statIsProof: true })),
    peers,
    serveHosted: serve,
    serveExposed,
    applyRetention,
    async close(signal) {
      peers.close();
      await cache.downloads.close(signal);
      await cache.records.flush(signal);
    },
  };
}

function policyOf(
  name: string,
  { connections, tagTtl, onDeleted, credentials }: UpstreamConfig,
  {
    cache,
    rateLimit,
    untrusted = false,
    credentialed = (repository) => credentials.some(({ repositories }) => repository.startsWith(`${name}/${repositories}`)),
  }: { cache: RegistryConfig['cache']; rateLimit: RateLimit } & Partial<Pick<CachePolicy, 'credentialed' | 'untrusted'>>,
): CachePolicy & { rateLimit: RateLimit } {
  return {
    name,
    connections,
    tagTtl,
    onDeleted,
    rateLimit,
    staleFor: cache.staleFor,
    negativeTtl: cache.negativeTtl,
    credentialed,
    untrusted,
  };
}

async function listenExposed(
  exposed: NonNullable<RegistryConfig['exposed']>,
  {
    guard,
    log,
    limits,
    stop,
  }: Pick<ListenOptions, 'log' | 'limits'> & { guard(this: void, admits: Authenticate): RequestHandler; stop: AbortSignal },
): Promise<Listener> {
  const authenticate = await createBasicAuth({ file: exposed.htpasswd, log });
  const tls = await loadTls(exposed.tls);
  const listener = await listen({ address: exposed.listen, handler: guard(authenticate), log, limits: limits ?? {}, tls });
  followTls(exposed.tls, tls, { use: (pair) => listener.setCertificate(pair), log, signal: stop });
  return listener;
}
