import { once } from 'node:events';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { requireFiles } from '../config/load.ts';
import type { RegistryConfig } from '../config/schema.ts';
import type { Registry } from '../oci/registry.ts';
import { createRateLimit } from '../upstream/rate-limit.ts';
import { cached, createManifestMemory, type Cache } from '../cache/cached.ts';
import { createFills } from '../download/downloads.ts';
import { createMembership } from '../cache/access.ts';
import { observed } from '../registry/observed.ts';
import { createPeers, noPeers } from '../peers/peers.ts';
import { createRecords } from '../cache/record-store.ts';
import { routed, type Route } from '../registry/routed.ts';
import { createUsage } from '../cache/usage.ts';
import { reportRawSockets } from '../http/raw/raw.ts';
import { serveAdmin } from '../server/admin.ts';
import { createBasicAuth, withBasicAuth } from '../server/basic-auth.ts';
import { listen, type Listener, type RequestHandler } from '../server/listen.ts';
import { serveRegistry, type ServeOptions } from '../server/serve-registry.ts';
import { followTls, loadTls } from '../server/tls.ts';
import { createMetrics } from '../telemetry/metrics.ts';
import { createRegistryMetrics, type RegistryMetrics } from '../telemetry/registry-metrics.ts';
import { pruneRegularly } from '../upkeep/schedule.ts';
import type { Host } from './command.ts';
import { pruneLimits, pruneTiming } from './wiring/prune-limits.ts';
import { createHosted } from './wiring/hosted.ts';
import { openStorage, type Storage } from './wiring/storage.ts';
import { upstreamsByHost } from './wiring/upstreams-by-host.ts';
import { createUpstream } from './wiring/upstreams.ts';

/** How long running pulls get when the process is told to stop, in ms. */
const GRACE = 30_000;
/** How long one request may bring its body, where pushes are taken. */
const PUSH_LIMIT_MS = 24 * 3_600_000;

/** `kube-registry registry`: serves until it is told to stop.
 *  @throws ConfigError: a file that it names cannot be read; OciError UNAVAILABLE: an address or a directory cannot be used */
export async function registry({ config, log, stop }: Host): Promise<void> {
  const own = config.registry;
  await requireFiles(own, 'registry');
  void reportRawSockets(log);
  const metrics = await createMetrics();
  const counts = createRegistryMetrics(metrics);
  const storage = await openStorage(own, { log, metrics: counts });
  const { images, serveHosted, close } = await createImages(own, { storage, log, counts });
  const read = serveRegistry(images, {
    log,
    upstreams: [...Object.keys(own.upstreams), ...Object.keys(own.hosted)],
    upstreamOf: upstreamsByHost({ ...own.upstreams, ...own.hosted }),
    ...redirectOf(images, storage),
    observe: ({ upstream, kind, status, bytes }) => counts.answered(upstream, { kind, status, bytes }),
  });

  const handler = serveHosted(read);
  // A push may take as long as it takes: its body is bounded by what it brings, not by a clock.
  const limits = Object.keys(own.hosted).length === 0 ? {} : { request: PUSH_LIMIT_MS };

  const listeners: Listener[] = [await listen({ address: own.listen, handler, log, limits })];
  if (own.exposed !== undefined) listeners.push(await listenExposed(own.exposed, { handler, log, stop }));
  const admin = serveAdmin({
    ready: () => !stop.aborted,
    metrics: () => metrics.render(),
    status: () =>
      Promise.resolve({
        upstreams: Object.fromEntries(Object.entries(own.upstreams).map(([name, { url }]) => [name, url])),
        ...storage.status(),
      }),
  });
  const adminListener = await listen({ address: own.admin, handler: admin, log });
  // From here on nothing is compiled that was not before. What downloads leave behind is collected at half the size then.
  setFlagsFromString('--memory-saver-mode');
  log.info({ listen: listeners[0]?.url, admin: adminListener.url, storage: storage.kind }, 'the registry is ready');
  const pruning = pruneRegularly({
    store: storage.records,
    limits: pruneLimits(own),
    maxShare: own.cache.maxPruneShare,
    timing: pruneTiming(own),
    log,
    metrics: counts,
    stop,
  });

  if (!stop.aborted) await once(stop, 'abort');
  log.info('stopping: running pulls may end');
  const deadline = AbortSignal.timeout(GRACE);
  await Promise.all(listeners.map((listener) => listener.drain(GRACE)));
  await close(deadline);
  await pruning;
  await storage.close(deadline);
  await adminListener.close();
}

/** How long ago S3 may have shown a blob to which a client is sent, in ms. */
const FRESH = 1000;

/** Blobs by redirect, to those who may have them. */
function redirectOf(images: Registry, { redirect }: Storage): Pick<ServeOptions, 'redirect'> {
  if (redirect === undefined) return {};
  return {
    async redirect(repository, digest, context) {
      if (context.hop === true) return undefined; // a replica looks into S3 itself
      const found = await redirect(digest, context.signal);
      if (found === undefined) return undefined;
      const answered = performance.now();
      const { size } = await images.stat(repository, digest, context);
      // An object of another size is damaged: read by the registry, that is noticed, and mended.
      if (size > 0 && found.size !== size) return undefined;
      // The upstream may have taken its time to answer, and S3 may be down by now.
      return performance.now() - answered < FRESH ? found.url : (await redirect(digest, context.signal))?.url;
    },
  };
}

interface ImagesContext {
  storage: Storage;
  log: Host['log'];
  counts: RegistryMetrics;
}

/** registry = routed({ name: observed(cached(upstream(name), storage and peers)), … }) */
export async function createImages(
  own: RegistryConfig,
  { storage, log, counts }: ImagesContext,
): Promise<{
  images: Registry;
  serveHosted(this: void, next: RequestHandler): RequestHandler;
  close: (signal: AbortSignal) => Promise<void>;
}> {
  const records = createRecords(storage.records, log);
  const fills = await createFills({
    local: storage.local,
    remote: storage.remote,
    spoolDirectory: join(storage.spoolDirectory, 'spool'),
    reserve: storage.reserve,
    keep: storage.keep,
    log,
    metrics: counts,
  });
  const usage = createUsage(records);
  const peers = own.peers === undefined ? noPeers : createPeers({ ...own.peers, own: own.listen, log, metrics: counts });
  const cache: Cache = {
    fills,
    records,
    members: createMembership(records),
    manifests: createManifestMemory(),
    local: storage.local,
    remote: storage.remote,
    keep: storage.keep,
    arrived: storage.arrived,
    peers,
    used: usage.mark,
    metrics: counts,
    log,
  };
  const routes: Record<string, Route> = {};
  for (const [name, config] of Object.entries(own.upstreams)) {
    const rateLimit = createRateLimit(name, counts);
    const policy = {
      name,
      rateLimit,
      connections: config.connections,
      tagTtl: config.tagTtl,
      staleFor: own.cache.staleFor,
      negativeTtl: own.cache.negativeTtl,
      credentialed: (repository: string) => config.credentials.some(({ repositories }) => repository.startsWith(`${name}/${repositories}`)),
    };
    routes[name] = {
      registry: observed(cached(createUpstream(name, config, { metrics: counts, rateLimit }), cache, policy), (kind) =>
        counts.read(name, kind, 'error'),
      ),
      defaultNamespace: config.defaultNamespace,
    };
  }
  const { registries, serve } = await createHosted(own, { storage, used: usage.mark, log });
  for (const [name, registry] of Object.entries(registries)) {
    routes[name] = { registry: observed(registry, (kind) => counts.read(name, kind, 'error')) };
  }
  return {
    images: routed(routes),
    serveHosted: serve,
    async close(signal) {
      peers.close();
      await fills.close(signal);
      await records.flush(signal);
    },
  };
}

async function listenExposed(
  exposed: NonNullable<RegistryConfig['exposed']>,
  { handler, log, stop }: { handler: ReturnType<typeof serveRegistry>; log: Host['log']; stop: AbortSignal },
): Promise<Listener> {
  const authenticate = await createBasicAuth({ file: exposed.htpasswd, log });
  const tls = await loadTls(exposed.tls);
  const listener = await listen({ address: exposed.listen, handler: withBasicAuth(handler, authenticate), log, tls });
  followTls(exposed.tls, tls, { use: (pair) => listener.setCertificate(pair), log, signal: stop });
  return listener;
}
