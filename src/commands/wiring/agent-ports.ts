import { setTimeout as delay } from 'node:timers/promises';
import { readHandoverSecret } from '../../agent/handover-secret.ts';
import type { AgentConfig } from '../../config/schema.ts';
import { isOciError } from '../../oci/error.ts';
import { offerSockets, requestSockets, type Handover, type Offer, type Sockets } from '../../server/handover.ts';
import { formatAddress, listen, type Listener, type ListenOptions, type RequestHandler } from '../../server/listen.ts';
import type { Log } from '../../telemetry/log.ts';
import type { SharingPort } from './nearest.ts';

export interface AgentPortsOptions {
  log: Log;
  stop: AbortSignal;
  /** Answers on `listen` and `extraPorts`. */
  handler: RequestHandler;
  /** Answers on `admin`. */
  admin: RequestHandler;
  /** Answers other nodes on `share.listen`; undefined: this node does not share. */
  sharing: SharingPort | undefined;
  /** Called when a predecessor holds the ports and does not hand them over: it must be removed
   *  first. */
  onWaiting: () => Promise<void>;
}

export interface AgentPorts {
  listener: Listener;
  admin: Listener;
  /** Stops handing over the sockets. */
  stopOffering(): void;
  /** As `Listener.drain`, for requests of other nodes. */
  drainShared(graceMs: number): Promise<void>;
}

/** How long to wait for a predecessor that does not hand its ports over, in ms. Kubernetes removes
 *  it within seconds of the successor's readiness. */
const MAX_WAIT_MS = 120_000;
const RETRY_MS = 10;
/** How often an agent tries to open the port for other nodes in the background, in ms. */
const SHARE_RETRY_MS = 1000;
const PROBE_TIMEOUT_MS = 2_000;

/** Opens the agent's ports. A running agent on the same ports hands its sockets over, so that no
 *  connection is refused while one agent replaces the other. The ports are never shared in any
 *  other way: with SO_REUSEPORT every process of the same user on the node's network could take
 *  part of the pulls (docs/decisions/agents-share-ports.md).
 *  @throws OciError UNAVAILABLE: a port is in use by something else */
export async function openAgentPorts(own: AgentConfig, options: AgentPortsOptions): Promise<AgentPorts> {
  const { log } = options;
  const handover = await prepareHandover(own, log);
  const sockets = await takeSockets(own, handover, log);
  const { listener, admin } = await openWhenFree(own, sockets, options);
  const shared = openShared(own, sockets, options);
  const all = (): Sockets => new Map([...listener.sockets(), ...admin.sockets(), ...shared.sockets()]);
  const offer: Offer | undefined = handover === undefined ? undefined : offerSockets(handover, all, log);
  return { listener, admin, stopOffering: () => offer?.close(), drainShared: (graceMs) => shared.drain(graceMs) };
}

/** Opens the port for other nodes in the background: without it, this agent shares nothing, but
 *  serves its own node. */
function openShared(own: AgentConfig, sockets: Sockets, { sharing, log, stop }: AgentPortsOptions) {
  let listener: Listener | undefined;

  async function open(port: SharingPort): Promise<void> {
    for (let hasWarned = false; !stop.aborted; hasWarned = true) {
      try {
        listener = await listen({ address: own.share.listen, handler: port.handler, log, sockets });
        return port.listensAt(listener.address);
      } catch (error) {
        if (!hasWarned) log.warn({ event: 'share-port-unavailable', error }, 'cannot open the port for other nodes; will retry');
      }
      await delay(SHARE_RETRY_MS, undefined, { signal: stop }).catch(() => undefined); // stopped
    }
  }

  const opening = sharing === undefined ? Promise.resolve() : open(sharing);
  return {
    sockets: (): Sockets => listener?.sockets() ?? new Map(),
    async drain(graceMs: number): Promise<void> {
      await opening;
      await listener?.drain(graceMs);
    },
  };
}

async function prepareHandover(own: AgentConfig, log: Log): Promise<Handover | undefined> {
  try {
    return { name: `kube-registry-agent/${formatAddress(own.listen)}`, secret: await readHandoverSecret(own.handoverSecretFile) };
  } catch (error) {
    log.warn(
      { event: 'handover-unavailable', error },
      'no usable handover secret: when a new agent replaces this one, the ports will be closed for a moment',
    );
    return undefined;
  }
}

async function takeSockets(own: AgentConfig, handover: Handover | undefined, log: Log): Promise<Sockets> {
  if (handover === undefined) return new Map();
  const addresses = [own.listen.port, ...own.extraPorts].map((port) => formatAddress({ host: own.listen.host, port }));
  try {
    const shared = own.share.enabled ? [formatAddress(own.share.listen)] : [];
    const sockets = (await requestSockets(handover, [...addresses, formatAddress(own.admin), ...shared])) ?? new Map();
    if (sockets.size > 0)
      log.info({ event: 'sockets-taken-over', addresses: [...sockets.keys()] }, 'took over the listening sockets from the old agent');
    return sockets;
  } catch (error) {
    log.warn({ event: 'handover-failed', error }, 'the old agent did not hand over its listening sockets');
    return new Map();
  }
}

async function openWhenFree(
  own: AgentConfig,
  sockets: Sockets,
  options: AgentPortsOptions,
): Promise<Pick<AgentPorts, 'listener' | 'admin'>> {
  const { log, stop, onWaiting } = options;
  const open = () => openBoth(own, sockets, options);
  try {
    return await open();
  } catch (error) {
    if (!isInUse(error) || !(await isHeldByAgent(own))) throw error;
    log.warn(
      { event: 'waiting-for-ports', error },
      'an old agent holds the ports and does not hand them over; opening them as soon as it stops',
    );
  }
  await onWaiting();
  for (const deadline = performance.now() + MAX_WAIT_MS; ;) {
    try {
      return await open();
    } catch (error) {
      stop.throwIfAborted();
      if (!isInUse(error) || performance.now() > deadline) throw error;
    }
    await delay(RETRY_MS);
  }
}

async function openBoth(
  own: AgentConfig,
  sockets: Sockets,
  { handler, admin, log }: AgentPortsOptions,
): Promise<Pick<AgentPorts, 'listener' | 'admin'>> {
  const common: Pick<ListenOptions, 'log' | 'sockets'> = { log, sockets };
  const listener = await listen({ ...common, address: own.listen, extraPorts: own.extraPorts, handler });
  try {
    return { listener, admin: await listen({ ...common, address: own.admin, handler: admin }) };
  } catch (error) {
    await listener.close();
    throw error;
  }
}

function isInUse(error: unknown): boolean {
  return isOciError(error, 'UNAVAILABLE') && (error.cause as NodeJS.ErrnoException | undefined)?.code === 'EADDRINUSE';
}

/** Whether an agent, possibly of an earlier release, answers on the ports. */
async function isHeldByAgent(own: AgentConfig): Promise<boolean> {
  const signal = AbortSignal.timeout(PROBE_TIMEOUT_MS);
  const [registry, admin] = await Promise.all([
    fetch(`http://${formatAddress(own.listen)}/v2/`, { signal }).then(
      (response) => response.headers.has('docker-distribution-api-version'),
      () => false,
    ),
    fetch(`http://${formatAddress(own.admin)}/livez`, { signal }).then(
      async (response) => (await response.text()) === 'ok\n',
      () => false,
    ),
  ]);
  return registry || admin;
}
