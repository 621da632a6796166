import { once } from 'node:events';
import { ConfigError, requireFiles } from '../config/load.ts';
import { readsPullSecrets, type Config, type WebhookConfig } from '../config/schema.ts';
import { serveAdmin } from '../server/admin.ts';
import { listen, type Listener, type TlsPair } from '../server/listen.ts';
import { followTls, loadTls } from '../server/tls.ts';
import type { Log } from '../telemetry/log.ts';
import { createMetrics, type Metrics } from '../telemetry/metrics.ts';
import { mergeBundles } from '../webhook/certificates.ts';
import { createConnectionLimits } from '../webhook/connection-limits.ts';
import type { Gate } from '../webhook/gate.ts';
import type { Kubernetes } from '../kubernetes/client.ts';
import type { SecretLookup } from '../webhook/pod-secrets.ts';
import { createPolicy } from '../webhook/policy.ts';
import { createReviewPath } from '../webhook/review-path.ts';
import { createReviewThread } from '../webhook/review-thread.ts';
import { serveWebhook } from '../webhook/serve-webhook.ts';
import type { Host } from './command.ts';

/** How long reviews that are being answered may take when the process stops; API servers wait 2
 *  s. */
const GRACE_MS = 5_000;
/** API servers close idle connections after 90 s (Go's default transport). The webhook must not be
 *  first: a review that is sent in that moment is lost, and its pod is created unchanged. */
const KEEP_ALIVE_MS = 120_000;
/** API servers give up after 2 s; a slower client is not an API server. */
const HEADERS_MS = 5_000;
const REQUEST_MS = 10_000;

/** `kube-registry webhook`: rewrites the images of pods until `stop` aborts.
 *  @throws ConfigError: no certificate is configured; OciError UNAVAILABLE: cannot listen on an
 *  address, or no Kubernetes API is configured */
export async function webhook({ config, log, stop, env }: Host): Promise<void> {
  const own = config.webhook;
  if (own.tls === undefined && own.certificates === undefined) {
    throw new ConfigError(
      'webhook.tls: found nothing; accepted: { certFile, keyFile }, or webhook.certificates for a certificate that the webhook creates in the cluster',
    );
  }
  if (own.pullSecrets === 'use' && !readsPullSecrets(config.pullSecrets)) {
    throw new ConfigError(
      'webhook.pullSecrets: found use; accepted: skip or rewrite, unless pullSecrets.namespaces or allNamespaces is set',
    );
  }
  await requireFiles(config.pullSecrets, 'pullSecrets');
  const metrics = await createMetrics();
  const count = metrics.counter('reviews_total', 'Admission reviews answered.', ['outcome']);
  const observe = metrics.histogram('review_seconds', 'Seconds from a request to its answer.', {
    labels: [],
    buckets: [0.001, 0.005, 0.01, 0.05, 0.25, 1],
  });
  const kubernetes = await connect(config, env);
  const secrets = await openSecrets(config, { kubernetes, metrics, log, signal: stop });
  const reviewPath = createReviewPath(isOpenToAll(own) ? secrets?.token : undefined);
  const gate = await createGate(own, kubernetes, { log, signal: stop });
  let listener: Listener | undefined;
  const admin = serveAdmin({ ready: () => listener !== undefined && !stop.aborted, metrics: () => metrics.render() });
  const adminListener = await listen({ address: own.admin, handler: admin, log });

  const connections = createConnectionLimits();
  const { upstreams, hosted, otherHosts } = config.registry;
  const secretsOf = secrets?.lookup ?? (() => undefined);
  const thread = createReviewThread({ webhook: own, registry: { upstreams, hosted, otherHosts } }, secretsOf);
  const handler = serveWebhook({
    policy: createPolicy(own, upstreams, { hosted, otherHosts, secretsOf }),
    publicPolicy: createPolicy(own, upstreams, { hosted, otherHosts }),
    isTrusted: reviewPath.isTrusted,
    gateOpen: () => gate.isOpen(),
    maxReviewSize: own.maxReviewSize,
    thread,
    violation: (address) => connections.violation(address),
    log,
    observe(outcome, seconds) {
      count({ outcome });
      observe({}, seconds);
    },
  });
  const renewed = (pair: TlsPair): void => listener?.setCertificate(pair);
  const tls = await certify(own, { kubernetes, reviewPath: reviewPath.path, log, signal: stop, renewed });
  if (tls !== undefined) {
    listener = await listen({
      address: own.listen,
      handler,
      log,
      tls,
      ...(own.clientCaBundle === undefined ? {} : { clientCa: own.clientCaBundle }),
      accept: (address) => connections.accept(address),
      closed: (address) => connections.closed(address),
      limits: { keepAlive: KEEP_ALIVE_MS, headers: HEADERS_MS, request: REQUEST_MS },
    });
    log.info({ event: 'webhook-ready', listen: listener.url, admin: adminListener.url }, 'webhook ready');
    if (!stop.aborted) await once(stop, 'abort');
    await listener.drain(GRACE_MS);
  }
  await thread.close();
  await adminListener.close();
  await kubernetes?.close();
}

/** Connects to the Kubernetes API, unless the configuration needs nothing from it. */
async function connect({ webhook, pullSecrets }: Config, env: NodeJS.ProcessEnv): Promise<Kubernetes | undefined> {
  const { tls, agents, configuration } = webhook;
  if (tls !== undefined && agents === undefined && configuration === undefined && !readsPullSecrets(pullSecrets)) return undefined;
  const { connectKubernetes } = await import('../kubernetes/client.ts');
  return connectKubernetes(env);
}

interface Secrets {
  lookup: SecretLookup;
  /** An unguessable part of the path for reviews. */
  token: () => string;
}

/** Waits a short time for the Secrets: until they are known, images of pods with pull secrets are
 *  not rewritten.
 *  @returns undefined if none are read */
async function openSecrets(
  { pullSecrets: config }: Config,
  context: { kubernetes: Kubernetes | undefined; metrics: Metrics; log: Log; signal: AbortSignal },
): Promise<Secrets | undefined> {
  const { kubernetes, metrics, log, signal } = context;
  if (kubernetes === undefined || !readsPullSecrets(config)) return undefined;
  const { lookupIn, openPullSecrets } = await import('./wiring/pull-secrets.ts');
  const secrets = await openPullSecrets(config, { kubernetes, metrics, keepsPasswords: false, log, signal });
  return { lookup: await lookupIn(secrets), token: () => secrets.derive('reviews') };
}

/** Whether the webhook accepts every client, and can set another path for the API server. */
function isOpenToAll({ clientCaBundle, certificates, configuration }: WebhookConfig): boolean {
  return clientCaBundle === undefined && (certificates !== undefined || configuration !== undefined);
}

async function createGate(
  { agents }: WebhookConfig,
  kubernetes: Kubernetes | undefined,
  context: { log: Log; signal: AbortSignal },
): Promise<Gate> {
  if (agents === undefined || kubernetes === undefined) return { isOpen: () => true };
  const { watchAgents } = await import('../webhook/gate.ts');
  return watchAgents(kubernetes, agents, context);
}

interface CertifyContext {
  kubernetes: Kubernetes | undefined;
  reviewPath: () => string;
  log: Log;
  signal: AbortSignal;
  /** Called with every later certificate. */
  renewed: (pair: TlsPair) => void;
}

/** Waits for the first certificate. @returns undefined if `signal` aborts before there is one */
async function certify({ tls, certificates, configuration }: WebhookConfig, context: CertifyContext): Promise<TlsPair | undefined> {
  const { kubernetes, reviewPath, log, signal, renewed } = context;
  if (tls !== undefined) {
    const pair = await loadTls(tls);
    followTls(tls, pair, { use: renewed, log, signal });
    if (configuration !== undefined && kubernetes !== undefined) {
      const { keepConfiguration } = await import('../webhook/webhook-configuration.ts');
      if (configuration.caBundle !== undefined && mergeBundles([configuration.caBundle], 1) === '') {
        throw new ConfigError('webhook.configuration.caBundle: found no certificate that is valid now; accepted: PEM');
      }
      void keepConfiguration(kubernetes, { name: configuration.name, authorities: configuration.caBundle, reviewPath, log, signal });
    }
    return pair;
  }
  if (certificates === undefined || kubernetes === undefined) return undefined;
  const { selfCertify } = await import('../webhook/self-certified.ts');
  let current: TlsPair | undefined;
  const use = (pair: TlsPair): void => {
    current = pair;
    renewed(pair);
  };
  await selfCertify(kubernetes, { place: certificates, reviewPath, use, log, signal }).catch((error: unknown) => {
    if (!signal.aborted) throw error;
  });
  return current;
}
