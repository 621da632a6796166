import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { crioFile, hostsFiles, removeNodeFiles, writeNodeFiles, type NodeFile } from '../agent/node-files.ts';
import { ConfigError } from '../config/load.ts';
import type { Config } from '../config/schema.ts';
import type { Registry } from '../oci/registry.ts';
import { createAllowance } from '../registry/allowance.ts';
import { createWay } from '../registry/dispatcher.ts';
import { failover } from '../registry/failover.ts';
import { routed } from '../registry/routed.ts';
import { serveAdmin } from '../server/admin.ts';
import { listen } from '../server/listen.ts';
import { serveRegistry } from '../server/serve-registry.ts';
import { createMetrics } from '../telemetry/metrics.ts';
import { createRegistryMetrics, type RegistryMetrics } from '../telemetry/registry-metrics.ts';
import type { Host } from './command.ts';
import { createRemote, createUpstream, upstreamsByHost } from './upstreams.ts';

const GRACE = 30_000;
/** Milliseconds: the node is next to the registry, and a pull must not wait for one that is gone. */
const CONNECT_TIMEOUT = 1000;
const FILES_INTERVAL = 60_000;

/** `kube-registry agent`: the node's own end of the registry, until it is told to stop.
 *  @throws ConfigError: no agent.registry; OciError UNAVAILABLE: an address cannot be used */
export async function agent({ config, log, stop }: Host): Promise<void> {
  const { agent: own, registry } = config;
  if (own.registry === undefined)
    throw new ConfigError("agent.registry: found nothing; accepted: the registry's URL, such as http://10.96.3.4:5000");
  const metrics = await createMetrics();
  const counts = createRegistryMetrics(metrics);
  const fellBack = metrics.counter('agent_direct_total', 'Reads that went straight to upstream.', []);
  const way = createWay({ proxy: 'direct', connectTimeout: CONNECT_TIMEOUT });
  const probe = (signal: AbortSignal) => answers(own.registry ?? '', signal);
  // Asked once: who else may answer is failover's to know.
  const remote = createRemote(own.registry, { way, metrics: counts, limits: { attempts: 1, headers: 30_000 } });
  const images = own.fallback ? failover(remote, createDirect(config, counts), { log, probe, stop, fellBack: () => fellBack({}) }) : remote;

  const handler = serveRegistry(images, {
    log,
    upstreams: Object.keys(registry.upstreams),
    upstreamOf: upstreamsByHost(registry.upstreams),
    observe: ({ upstream, kind, status, bytes }) => counts.answered(upstream, { kind, status, bytes }),
  });
  const listener = await listen({ address: own.listen, extraPorts: own.extraPorts, handler, log, reusePort: true });
  const admin = serveAdmin({ ready: () => !stop.aborted, metrics: () => metrics.render() });
  const adminListener = await listen({ address: own.admin, handler: admin, log, reusePort: true });
  log.info({ listen: listener.url, admin: adminListener.url, registry: own.registry }, 'the agent is ready');

  const files = nodeFiles(config);
  const writing = files.length === 0 ? undefined : keepFiles(files, { log, stop, probe });
  if (!stop.aborted) await once(stop, 'abort');
  await writing;
  if (own.mirror?.removeOnExit === true) await removeNodeFiles(files, log);
  await listener.drain(GRACE);
  await adminListener.close();
}

/** `kube-registry agent --remove`: takes back what an agent wrote on this node. */
export async function removeAgentFiles({ config, log }: Host): Promise<void> {
  await removeNodeFiles(nodeFiles(config), log);
}

function nodeFiles({ agent: own, registry }: Config): NodeFile[] {
  const url = `http://127.0.0.1:${own.listen.port}`;
  return [
    ...(own.mirror === undefined ? [] : hostsFiles(own.mirror.directory, Object.values(registry.upstreams), url)),
    ...(own.crio === undefined ? [] : [crioFile(own.crio.directory, url)]),
  ];
}

/** Writes the files once the registry has answered, and again when somebody changed them. */
async function keepFiles(
  files: NodeFile[],
  { log, stop, probe }: Pick<Host, 'log' | 'stop'> & { probe: (signal: AbortSignal) => Promise<boolean> },
): Promise<void> {
  while (!stop.aborted && !(await probe(AbortSignal.any([stop, AbortSignal.timeout(2000)])).catch(() => false))) {
    await delay(1000, undefined, { signal: stop }).catch(() => undefined); // stopped
  }
  while (!stop.aborted) {
    try {
      await writeNodeFiles(files, log);
    } catch (error) {
      log.warn(
        { error, directory: files[0]?.path },
        'the files for the container runtime cannot be written: is the directory mounted and writable?',
      );
    }
    await delay(FILES_INTERVAL, undefined, { signal: stop }).catch(() => undefined); // stopped
  }
}

async function answers(url: string, signal: AbortSignal): Promise<boolean> {
  const response = await fetch(`${url}/v2/`, { signal });
  await response.body?.cancel();
  return response.ok;
}

/** The upstreams themselves, without the registry's proxy and without its credentials. */
function createDirect({ agent: own, registry }: Config, metrics: RegistryMetrics): Registry {
  const routes = Object.entries(registry.upstreams).map(([name, config]) => {
    const mirrors = config.mirrors.map((mirror) => ({ ...mirror, proxy: own.proxy }));
    const direct = { ...config, proxy: own.proxy, mirrors, credentials: [] };
    return [
      name,
      {
        registry: createUpstream(name, direct, { metrics, allowance: createAllowance(name, metrics), connectTimeout: CONNECT_TIMEOUT }),
        defaultNamespace: config.defaultNamespace,
      },
    ] as const;
  });
  return routed(Object.fromEntries(routes));
}
