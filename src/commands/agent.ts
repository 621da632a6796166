import { once } from 'node:events';
import { rm, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import {
  createNodeFiles,
  crioFile,
  defaultHostsFile,
  hostsFiles,
  ownHostsFile,
  type NodeFile,
  type NodeFiles,
} from '../agent/node-files.ts';
import { ConfigError } from '../config/load.ts';
import type { AgentConfig, Config } from '../config/schema.ts';
import { createOtherHosts } from '../oci/other-hosts.ts';
import type { Registry } from '../oci/registry.ts';
import { failover } from '../registry/failover.ts';
import { lazy } from '../registry/lazy.ts';
import { createRawTransport } from '../http/raw/raw-transport.ts';
import type { Transport } from '../http/transport.ts';
import { reportRawSockets } from '../http/raw/raw.ts';
import { serveAdmin } from '../server/admin.ts';
import type { RequestHandler } from '../server/listen.ts';
import { LOGIN_HEADER, mirrorLogin } from '../server/mirror-login.ts';
import { lazyFileSender } from '../server/send-file.ts';
import { NODE_HEADER, serveRegistry, type ServeOptions } from '../server/serve-registry.ts';
import type { Log } from '../telemetry/log.ts';
import { createMetrics } from '../telemetry/metrics.ts';
import { createRegistryMetrics, type RegistryMetrics } from '../telemetry/registry-metrics.ts';
import type { Host } from './command.ts';
import { remote } from '../upstream/remote.ts';
import { openAgentPorts } from './wiring/agent-ports.ts';
import { collectGarbage } from './wiring/collect-garbage.ts';
import { createNearby } from './wiring/nearest.ts';
import { watchNodeProblems } from './wiring/node-problems.ts';
import { servedNames } from './wiring/served-names.ts';

/** How long running pulls may continue after SIGTERM, in ms; the chart gives the pod 60 s. */
const GRACE = 50_000;
/** How long requests to `admin` may continue after SIGTERM, in ms. Its port is closed at once, not
 *  after running pulls, for the next agent. */
const ADMIN_GRACE = 1000;
/** Milliseconds. The registry is nearby, and a pull must not wait for one that is down. */
const CONNECT_TIMEOUT = 1000;
/** Milliseconds. The registry itself resumes downloads from silent upstreams, which takes time. */
const REMOTE_LIMITS = { attempts: 1, headersMs: 25_000, idleMs: 30_000 };
const FILES_INTERVAL = 10_000;

/** `kube-registry agent`: serves the pulls of its node until SIGTERM.
 *  @throws ConfigError: no agent.registry; OciError UNAVAILABLE: an address cannot be used */
export async function agent({ config, log, stop }: Host): Promise<void> {
  const { agent: own, registry } = config;
  const { readyFile } = own;
  if (readyFile !== undefined) await rm(readyFile, { force: true }); // left by a process that was killed
  const url = registryOf(own);
  void reportRawSockets(log);
  const metrics = await createMetrics();
  const counts = createRegistryMetrics(metrics);
  const fellBack = metrics.counter('agent_direct_total', 'Reads that went straight to upstream.', []);
  const transport = createRawTransport({ connectTimeout: CONNECT_TIMEOUT });
  const probe = (signal: AbortSignal) => answers(transport, url, signal);
  // Asked once: retries are left to failover.
  const headers = { [NODE_HEADER]: hostname() }; // the node's name, on its network
  const toRegistry = { name: 'registry', url, transport, headers, metrics: counts, limits: REMOTE_LIMITS };
  const direct = own.fallback ? createDirect(config, counts) : undefined;
  const nearby = await createNearby(remote(toRegistry), own, { url, headers, direct, transport, log, metrics });
  const outage = { log, probe, stop, fellBack: () => fellBack({}) };
  const images = direct === undefined ? nearby.registry : failover(nearby.registry, direct, outage);

  const serving: ServeOptions = {
    log,
    ...servedNames(registry),
    observe: ({ upstream, kind, status, bytes }) => counts.answered(upstream, { kind, status, bytes }),
    challengesMirrors: true,
    fileSender: lazyFileSender(),
  };
  const anonymous = serveRegistry(images, serving);
  // The login is sent only to the registry, and is not kept after the request. If the registry does
  // not answer, the runtime sends the login to upstream itself.
  const withLogin = (login: string) => serveRegistry(remote({ ...toRegistry, headers: { ...headers, [LOGIN_HEADER]: login } }), serving);
  const handler: RequestHandler = (request, response) => {
    const login = mirrorLogin(request);
    return (login === undefined ? anonymous : withLogin(login))(request, response);
  };
  // Always ready: during an upgrade either of two agents may answer on this port.
  const admin = serveAdmin({ ready: () => true, metrics: () => metrics.render() });
  const reportReady = async () => {
    if (readyFile !== undefined) await writeFile(readyFile, '');
  };
  const ports = await openAgentPorts(own, { handler, admin, sharing: nearby.sharing, log, stop, onWaiting: reportReady });
  log.info({ event: 'agent-ready', listen: ports.listener.url, admin: ports.admin.url, registry: url }, 'the agent is ready');

  const files = nodeFiles(config, log);
  const checkNode = watchNodeProblems(own, log, metrics);
  await checkNode();
  await takeOver(files, log);
  const writing = files.count === 0 ? undefined : keepFiles(files, { log, stop, probe, checkNode });
  await reportReady();
  collectGarbage('last-resort'); // some 4 MiB that V8 would otherwise keep until the first pulls
  if (!stop.aborted) await once(stop, 'abort');
  ports.stopOffering();
  if (readyFile !== undefined) await rm(readyFile, { force: true });
  await writing;
  if (own.mirror?.removeOnExit === true || own.ownHosts?.removeOnExit === true) await files.remove();
  const deadline = AbortSignal.timeout(GRACE);
  await Promise.all([ports.listener.drain(GRACE), ports.admin.drain(ADMIN_GRACE), ports.drainShared(GRACE)]);
  await nearby.sharing?.close(deadline);
}

/** `kube-registry agent --remove`: removes the files that agents wrote on this node. */
export async function removeAgentFiles({ config, log }: Host): Promise<void> {
  await nodeFiles(config, log).removeAll();
}

function registryOf({ registry }: AgentConfig): string {
  const accepted = "accepted: the registry's URL, such as http://10.96.3.4:5000";
  if (registry === undefined) throw new ConfigError(`agent.registry: found nothing; ${accepted}`);
  // Kubernetes does not expand a variable that it does not know.
  if (registry.includes('$('))
    throw new ConfigError(
      `agent.registry: found ${registry}; ${accepted}. The registry's Service was not there when this container started: it is started again`,
    );
  return registry;
}

/** hosts.toml for every host that is served. */
function mirrorFiles(directory: string, { upstreams, hosted, otherHosts }: Config['registry'], agent: string): NodeFile[] {
  const others = createOtherHosts(otherHosts);
  const names = [...others.names, ...Object.values(hosted).flatMap(({ hosts }) => hosts)];
  const mirrored = [...Object.values(upstreams), ...names.map((host) => ({ url: `https://${host}`, hosts: [host] }))];
  return [...hostsFiles(directory, mirrored, agent), ...(others.everything ? [defaultHostsFile(directory, agent)] : [])];
}

function nodeFiles({ agent: own, registry }: Config, log: Log): NodeFiles {
  const url = `http://127.0.0.1:${own.listen.port}`;
  const ownHosts = own.ownHosts ?? own.mirror;
  const files = [
    ...(own.mirror === undefined ? [] : mirrorFiles(own.mirror.directory, registry, url)),
    ...(ownHosts === undefined ? [] : [ownHostsFile(ownHosts.directory, url)]),
    ...(own.crio === undefined ? [] : [crioFile(own.crio.directory, url)]),
  ];
  return createNodeFiles(files, log);
}

/** Takes over the files of the agent that this one replaces. They exist because the registry had
 *  answered. */
async function takeOver(files: NodeFiles, log: Log): Promise<void> {
  await files.takeOver().catch((error: unknown) => complain(error, log));
}

/** Writes the files once the registry has answered, and again when another program has changed
 *  them. */
async function keepFiles(
  files: NodeFiles,
  {
    log,
    stop,
    probe,
    checkNode,
  }: Pick<Host, 'log' | 'stop'> & { probe: (signal: AbortSignal) => Promise<boolean>; checkNode: () => Promise<void> },
): Promise<void> {
  const pause = (milliseconds: number) => delay(milliseconds, undefined, { signal: stop }).catch(() => undefined); // stopped
  while (!stop.aborted && !(await probe(AbortSignal.any([stop, AbortSignal.timeout(2000)])).catch(() => false))) await pause(1000);
  while (!stop.aborted) {
    await files.write().catch((error: unknown) => complain(error, log));
    await pause(FILES_INTERVAL);
    await checkNode().catch((error: unknown) => complain(error, log));
  }
}

function complain(error: unknown, log: Log): void {
  log.warn({ event: 'node-files-failed', error }, 'cannot write the files for the container runtime; will retry');
}

async function answers(transport: Transport, url: string, signal: AbortSignal): Promise<boolean> {
  const { origin, pathname } = new URL(`${url}/v2/`);
  const { statusCode, abandon } = await transport.request({ origin, path: pathname, method: 'GET', headers: {}, signal });
  abandon('short');
  return statusCode === 200;
}

/** The upstreams themselves, loaded when the first of them is needed. */
function createDirect({ agent: own, registry }: Config, metrics: RegistryMetrics): Registry {
  return lazy(async () => {
    const { createDirectUpstreams } = await import('./wiring/direct-upstreams.ts');
    return createDirectUpstreams(registry, { proxy: own.proxy, connectTimeout: CONNECT_TIMEOUT, metrics });
  });
}
