import { createServer, type AddressInfo } from 'node:net';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { raceAbort } from '../../async/race-abort.ts';
import { itemsOf, type Fields } from '../../io/untrusted.ts';
import { encodeConfig } from '../config/encode.ts';
import type { Copies } from '../subscription/copies.ts';
import { createController, type Controller } from './controller.ts';
import type { Mihomo } from './mihomo.ts';
import { createSteering, type Steering, type SteeringOptions } from './steering.ts';

/** The config of a mihomo process. */
export interface Spec {
  /** The config, with the configured ports; each process gets free ports instead. */
  config: Fields;
  /** The target of traffic that no rule matches: a group or a node. */
  main: string;
}

/** A mihomo process that listens on its own free ports. */
export interface Instance {
  spec: Spec;
  /** On 127.0.0.1. */
  ports: { proxy: number; shared: number; controller: number };
  controller: Controller;
  steering: Steering;
  pid: number | undefined;
  exited: Promise<number | NodeJS.Signals | null>;
  stop(): Promise<void>;
}

export interface InstanceContext {
  mihomo: Mihomo;
  copies: Copies;
  /** The controller's. */
  secret: string;
  preferProviders: boolean;
  intervalMs: number;
  preferred: NonNullable<SteeringOptions['preferred']>;
  left: SteeringOptions['left'];
  /** Finds ports that are free now. */
  findPorts?: (count: number) => Promise<number[]>;
}

/** How long mihomo may take until it listens: it reads all nodes first. */
const START_LIMIT_MS = 60_000;
const POLL_MS = 25;
/** Something else may take a free port before mihomo does. */
const PORT_ATTEMPTS = 5;
let started = 0;

type StartContext = InstanceContext & { first?: string | undefined };

class PortTakenError extends Error {}

/** Starts a mihomo, and resolves when it listens.
 *  @throws Error: it has ended, or does not listen in time */
export async function startInstance(spec: Spec, context: StartContext): Promise<Instance> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await startOnce(spec, context);
    } catch (error) {
      if (!(error instanceof PortTakenError) || attempt === PORT_ATTEMPTS) throw error;
    }
  }
}

/** @throws PortTakenError, and as `startInstance` */
async function startOnce(spec: Spec, { first, findPorts = freePorts, ...context }: StartContext): Promise<Instance> {
  const { mihomo, copies, secret, preferProviders, intervalMs, preferred, left } = context;
  const [proxy, shared, controllerPort] = await findPorts(3);
  const ports = { proxy: proxy ?? 0, shared: shared ?? 0, controller: controllerPort ?? 0 };
  const file = `run-${++started}.json`;
  await copies.write(file, encodeConfig(withPorts(spec.config, ports)));
  const process = mihomo.start(copies.path(file));
  const controller = createController({ port: ports.controller, secret });
  const ended = new AbortController();
  const exited = process.exited.then((code) => (ended.abort(), code));
  const stop = async () => {
    ended.abort();
    await process.stop();
    await copies.remove(file);
  };
  try {
    await untilUp(() => controller.isUp(ports.proxy), process.lacksPort, ended.signal);
  } catch (error) {
    await stop();
    throw error;
  }
  const steering = createSteering({
    controller,
    main: spec.main,
    preferProviders,
    intervalMs,
    first,
    preferred,
    left,
    signal: ended.signal,
  });
  return { spec, ports, controller, steering, pid: process.pid, exited, stop };
}

async function untilUp(isUp: () => Promise<boolean>, lacksPort: AbortSignal, ended: AbortSignal): Promise<void> {
  const hopeless = AbortSignal.any([lacksPort, ended]);
  for (const until = Date.now() + START_LIMIT_MS; ;) {
    const up = await raceAbort(isUp(), hopeless).catch(() => false);
    if (lacksPort.aborted) throw new PortTakenError('a port that mihomo was to listen on is in use');
    if (ended.aborted) throw new Error('mihomo exited at its start');
    if (up) return;
    if (Date.now() > until) throw new Error(`mihomo is not listening after ${START_LIMIT_MS / 1000} s`);
    await delay(POLL_MS);
  }
}

function withPorts(config: Fields, { proxy, shared, controller }: Instance['ports']): Fields {
  return {
    ...config,
    'mixed-port': proxy,
    'external-controller': `127.0.0.1:${controller}`,
    listeners: itemsOf(config['listeners']).map((listener) => ({ ...listener, listen: '127.0.0.1', port: shared })),
  };
}

async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'));
  await Promise.all(servers.map((server) => once(server, 'listening')));
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => once(server.close(), 'close')));
  return ports;
}
