import { once } from 'node:events';
import { setFlagsFromString } from 'node:v8';
import { requireFiles } from '../config/load.ts';
import { readsPullSecrets, type Config, type RegistryConfig } from '../config/schema.ts';
import { reportRawSockets } from '../http/raw/raw.ts';
import { withoutCapability } from '../oci/capability.ts';
import { isDigest } from '../oci/digest.ts';
import type { Repository } from '../oci/reference.ts';
import { serveAdmin } from '../server/admin.ts';
import type { Status } from '../server/status-page.ts';
import { createBasicAuth } from '../server/basic-auth.ts';
import { listen, type Listener, type RequestHandler } from '../server/listen.ts';
import { followTls, loadTls } from '../server/tls.ts';
import type { PullSecrets } from '../pull-secrets/pull-secrets.ts';
import type { Log } from '../telemetry/log.ts';
import { createMetrics } from '../telemetry/metrics.ts';
import { createRegistryMetrics } from '../telemetry/registry-metrics.ts';
import { createPlannedRun } from '../upkeep/planned-run.ts';
import type { Host } from './command.ts';
import { collectGarbage } from './wiring/collect-garbage.ts';
import type { Console } from './wiring/console.ts';
import { createImages } from './wiring/images.ts';
import { createObservation } from './wiring/observation.ts';
import type { PullSecretsContext } from './wiring/pull-secrets.ts';
import { serveImages, type ImageHandlers } from './wiring/serve-images.ts';
import { openStorage, type Storage } from './wiring/storage.ts';
import { reportUpstreams } from './wiring/upstreams.ts';

/** How long running pulls may continue after SIGTERM, in ms. */
const GRACE_MS = 30_000;
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
  const images = await createImages(own, {
    storage,
    log,
    counts,
    secrets,
    refused: ({ repository, reference, rule }) =>
      observation.refusals.add({ image: `${withoutCapability(repository)}${isDigest(reference) ? '@' : ':'}${reference}`, rule }),
    env,
  });
  const handlers = serveImages(own, { images, storage, counts, log, observation: own.console.enabled ? observation : undefined });
  const listeners = await listenToClients(own, { handlers, log, stop });
  const plannedPruning = createPlannedRun();
  const opened = Promise.withResolvers<Console | undefined>();
  const admin = await listen({
    address: own.admin,
    handler: serveAdmin({
      consoleAt: async (path) => (await opened.promise)?.at(path),
      ready: () => !stop.aborted,
      metrics: () => metrics.render(),
      status: () => Promise.resolve(statusOf(own, storage)),
    }),
    log,
  });
  log.info({ event: 'registry-ready', listen: listeners[0]?.url, admin: admin.url, storage: storage.kind }, 'the registry is ready');

  // The code of the console and of upkeep is loaded now, so that pulls need not wait for it.
  const { startUpkeep } = await import('./wiring/upkeep.ts');
  const context = { images: images.images, inside: images.inside, storage, observation, pruning: plannedPruning };
  const consoled = own.console.enabled ? await (await import('./wiring/console.ts')).openConsole(host, context) : undefined;
  opened.resolve(consoled);
  const exposedConsole = await listenForConsole(own.console.listen, consoled?.exposed, log);
  const upkeep = startUpkeep(host, { images, secrets, storage, counts, metrics, plannedPruning });
  // In memory saver mode, V8 collects the garbage of downloads at half the heap size. It also
  // changes the compile cache's folder, which no longer matters now that all code is compiled.
  setFlagsFromString('--memory-saver-mode');
  collectGarbage(); // the mode counts from the next full collection on

  if (!stop.aborted) await once(stop, 'abort');
  log.info({ event: 'registry-stopping' }, 'stopping; waiting for running pulls to finish');
  const deadline = AbortSignal.timeout(GRACE_MS);
  await Promise.all(listeners.map((listener) => listener.drain(GRACE_MS)));
  await images.close(deadline);
  handlers.close();
  await upkeep;
  await storage.close(deadline);
  await consoled?.close();
  await exposedConsole?.close();
  await admin.close();
}

interface ReadSecrets extends PullSecrets {
  /** Whether a repository was read with a pull secret that no longer exists. */
  isAbandoned(this: void, repository: Repository): boolean;
}

/** The pull secrets whose ids give access to private images. Waits a short time for the first
 *  list. */
async function openSecrets(
  { pullSecrets }: Config,
  { env, ...context }: Omit<PullSecretsContext, 'kubernetes' | 'keepsPasswords'> & { env: NodeJS.ProcessEnv },
): Promise<ReadSecrets | undefined> {
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

/** Listens at registry.listen and, if it is configured, registry.exposed. */
async function listenToClients(
  { listen: address, exposed, hosted }: RegistryConfig,
  { handlers, log, stop }: { handlers: ImageHandlers; log: Log; stop: AbortSignal },
): Promise<Listener[]> {
  // A push may take long: its body is limited in bytes, not in time.
  const limits = Object.keys(hosted).length === 0 ? {} : { request: PUSH_LIMIT_MS };
  const inside = await listen({ address, handler: handlers.handler, log, limits });
  if (exposed === undefined) return [inside];
  const authenticate = await createBasicAuth({ file: exposed.htpasswd, log });
  const tls = await loadTls(exposed.tls);
  const outside = await listen({ address: exposed.listen, handler: handlers.exposed(authenticate), log, limits, tls });
  followTls(exposed.tls, tls, { use: (pair) => outside.setCertificate(pair), log, signal: stop });
  return [inside, outside];
}

async function listenForConsole(
  address: RegistryConfig['console']['listen'],
  handler: RequestHandler | undefined,
  log: Log,
): Promise<Listener | undefined> {
  return address === undefined || handler === undefined ? undefined : listen({ address, handler, log });
}

function statusOf(own: RegistryConfig, storage: Storage): Status {
  return {
    upstreams: Object.fromEntries(Object.entries(own.upstreams).map(([name, { url }]) => [name, url])),
    ...storage.status(),
  };
}
