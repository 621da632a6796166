import { randomBytes } from 'node:crypto';
import { resolve as resolvePath } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { backoff } from '../async/backoff.ts';
import type { ClashConfig } from '../config/schema.ts';
import type { Log } from '../telemetry/log.ts';
import { createResourceFeeds, followSubscription, type SubscriptionState } from './feeds.ts';
import { followFiles, openFiles, type Files } from './files.ts';
import type { Inputs } from './config/render.ts';
import { openFront, type Front } from './front/front.ts';
import { createReportServer } from './front/reports.ts';
import { createWatch } from './front/watch.ts';
import { createApplier, type Applier, type Outcome } from './mihomo/apply.ts';
import { createFleet, type Fleet } from './mihomo/fleet.ts';
import { startInstance, type Instance, type InstanceContext, type Spec } from './mihomo/instance.ts';
import { createMihomo } from './mihomo/mihomo.ts';
import { createOffers } from './mihomo/offers.ts';
import { prove } from './mihomo/prove.ts';
import { readStatus, type MihomoStatus, type NodeStatus } from './mihomo/status.ts';
import { openCopies, type Copies, type Copy } from './subscription/copies.ts';
import { ClashError } from './subscription/document.ts';
import type { Way } from './subscription/download.ts';
import { createEntryReader, type EntryReader } from './mihomo/entry-reader.ts';
import { vetContent } from './mihomo/vet.ts';
import { createRedactor, type Redactor } from './subscription/redact.ts';
import type { UserInfo } from './subscription/userinfo.ts';

export interface ClashOptions {
  own: ClashConfig;
  /** How to connect, for a value of the configuration's `proxy` keys: directly, or through a
   *  proxy's URL. */
  wayOf: (proxy: string) => Way;
  log: Log;
  env: NodeJS.ProcessEnv;
  counted: (outcome: Outcome | 'failed') => void;
  signal: AbortSignal;
}

/** The content of /status. */
export interface ClashStatus extends MihomoStatus {
  mode: ClashConfig['mode'];
  /** The port on 127.0.0.1. */
  port: number;
  mihomo: { version: string; running: boolean; restarts: number };
  config: { proven: boolean; problem: string | undefined; notes: string[] };
  /** The target of traffic that no rule matches. */
  group: string;
  /** The node that a user has selected; undefined: the fastest one is used. */
  preferred: string | undefined;
  subscriptions: SubscriptionStatus[];
}

interface SubscriptionStatus extends UserInfo {
  name: string;
  /** When the subscription in use was fetched, ISO 8601. */
  fetchedAt: string | undefined;
  nodes: number;
  /** Why the last attempt to fetch or use it failed. */
  problem: string | undefined;
}

export interface Clash {
  /** Whether mihomo runs. */
  ready(): boolean;
  status(): Promise<ClashStatus>;
  /** Uses this node from now on, as long as it is alive; undefined: the fastest one, as before.
   *  @throws ClashError: there is no such node */
  choose(node: string | undefined): Promise<void>;
  /** Resolves when mihomo has ended and all ports are closed, after `signal`. */
  ended: Promise<void>;
}

/** How often an unproven config is tried, in ms; doubled by each failure. */
const FIRST_CONFIRM_MS = 2000;
const CONFIRM = { baseMs: 15_000, capMs: 300_000 };

/** Runs mihomo with a config made from the configuration and the subscriptions. Returns without
 *  waiting for either: the proxy accepts connections within a second, and refuses requests until it
 *  has a node.
 *  @throws ClashError: mihomo, a password's file or a port cannot be used; Error (EACCES …): the
 *  directory cannot be written */
export async function superviseClash({ own, wayOf, log, env, counted, signal }: ClashOptions): Promise<Clash> {
  const redactor = createRedactor();
  const secret = randomBytes(24).toString('base64url');
  redactor.add(secret);
  const copies = await openCopies(resolvePath(own.directory), own.geodata);
  const mihomo = await createMihomo({ binary: own.mihomo, directory: copies.directory, log, redactor, env });
  let preferred: string | undefined;
  const entrances = await openEntrances(own, { mihomo, copies, secret, preferred: () => preferred, log, signal });
  const { fleet, front } = entrances;
  const proveNow = (instance: Instance) => prove(instance, { url: own.healthCheck.url, signal });
  const applier = createApplier({ context: { own, secret }, copies, mihomo, fleet, prove: proveNow, log });

  const files = openFiles(own, redactor);
  const reader = createEntryReader({ binary: own.mihomo, directory: copies.directory, env });
  const known = await readCopies(own, { copies, redactor, reader, version: mihomo.version });
  const first = await firstInputs({ known, copies, files, log });

  const changed = () => resources.follow(applier.rendered()?.resources ?? []);
  const offer = createOffers({ applier, redactor, log, signal, counted, changed });
  const context = { own, wayOf, copies, redactor, offer, mihomo, reader, log, signal };
  const resources = createResourceFeeds(context);
  const begun = applier.begin(first); // downloads need not wait for mihomo
  const states = own.subscriptions.map((subscription) => followSubscription(subscription, known.get(subscription.name), context));
  await begun;
  changed();
  const fileProblem = followFiles({ files, inputs: applier.inputs(), offer, log, signal });
  void confirmForever(applier, { log, signal });

  async function findStatus(): Promise<MihomoStatus> {
    const question = { main: applier.main(), rendered: applier.rendered(), subscriptions: own.subscriptions.map(({ name }) => name) };
    const live = fleet.live();
    return live === undefined ? NOTHING_FOUND : readStatus(live.controller, question).catch(() => NOTHING_FOUND);
  }

  return {
    ready: () => fleet.live() !== undefined && !signal.aborted,
    ended: Promise.all([fleet.ended, front.closed]).then(() => undefined),
    async choose(node) {
      const { nodes } = node === undefined ? { nodes: [] } : await findStatus();
      if (node !== undefined && !nodes.some(({ name }) => name === node)) throw new ClashError(`there is no node ${JSON.stringify(node)}`);
      preferred = node;
      await fleet.live()?.steering.prefer();
    },
    async status() {
      const found = await findStatus();
      return {
        mode: own.mode,
        port: own.ports.proxy,
        mihomo: { version: mihomo.version, running: fleet.live() !== undefined, restarts: fleet.restarts() },
        config: {
          proven: applier.proven(),
          problem: applier.problem() ?? fileProblem() ?? resources.problem(),
          notes: (applier.rendered()?.notes ?? []).slice(0, MAX_NOTES).map((note) => redactor.clean(note)),
        },
        group: applier.main(),
        preferred,
        ...found,
        subscriptions: states.map((state) => describeSubscription(state, found.nodes)),
      };
    },
  };
}

type EntrancesContext = Pick<InstanceContext, 'mihomo' | 'copies' | 'secret' | 'preferred'> & { log: Log; signal: AbortSignal };

/** The listeners for clients, and the mihomo processes behind them. */
async function openEntrances(own: ClashConfig, { log, signal, ...context }: EntrancesContext): Promise<{ front: Front; fleet: Fleet }> {
  const preferProviders = own.mode === 'nodes';
  const start = (spec: Spec, first?: string) =>
    startInstance(spec, { ...context, preferProviders, intervalMs: own.healthCheck.interval, first, left: (node) => watch.left(node) });
  const fleet = createFleet({
    entrances: { use: (ports) => front.use(ports), links: () => front.links(), shed: (ports) => front.shed(ports) },
    start,
    log,
    signal,
  });
  const watch = createWatch({ links: () => front.links(), fleet, log, signal });
  const { proxy, shared } = own.ports;
  const ports = [
    { entrance: 'proxy', host: '127.0.0.1', port: proxy },
    { entrance: 'shared', host: '0.0.0.0', port: shared },
    { entrance: 'controller', ...own.controller },
  ] as const;
  const front = await openFront({
    listen: ports.filter(({ port }) => port !== 0),
    events: {
      opened: () => watch.opened(),
      unanswered: () => watch.unanswered(),
      request: createReportServer((report) => watch.report(report)),
    },
    signal,
  });
  return { front, fleet };
}

const NOTHING_FOUND: MihomoStatus = { chosen: undefined, nodes: [], traffic: { uploaded: 0, downloaded: 0, connections: 0 } };
const MAX_NOTES = 50;

function describeSubscription({ name, fetchedAt, userInfo, problem }: SubscriptionState, nodes: readonly NodeStatus[]): SubscriptionStatus {
  return {
    name,
    fetchedAt: fetchedAt === undefined ? undefined : new Date(fetchedAt).toISOString(),
    nodes: nodes.filter(({ subscription }) => subscription === name).length,
    ...userInfo,
    problem,
  };
}

interface FirstContext {
  known: ReadonlyMap<string, Copy>;
  copies: Copies;
  files: Files;
  log: Log;
}

/** The inputs of the first config: the files, and copies of earlier downloads. */
async function firstInputs({ known, copies, files, log }: FirstContext): Promise<Inputs> {
  return {
    subscriptions: new Map([...known].map(([name, { content }]) => [name, content])),
    users: await files.users(),
    custom: await files.custom().catch((error: Error) => {
      log.error({ event: 'clash-file-unusable' }, error.message);
      return undefined;
    }),
    resources: await copies.resources(),
    banned: new Set(),
  };
}

/** The subscriptions as they were last fetched and used. */
async function readCopies(
  { subscriptions }: ClashConfig,
  { copies, redactor, reader, version }: { copies: Copies; redactor: Redactor; reader: EntryReader; version: string },
): Promise<Map<string, Copy>> {
  const names = subscriptions.map(({ name }) => name);
  await copies.keepCopies(names);
  const known = new Map<string, Copy>();
  for (const name of names) {
    const copy = await vetCopy(await copies.readCopy(name), { reader, version });
    if (copy === undefined) continue;
    known.set(name, copy);
    if (copy.content.kind === 'clash') redactor.addNodes(copy.content.document['proxies']);
  }
  return known;
}

/** A copy that another version of mihomo has read is checked again. Undefined: this version can use
 *  nothing of it. */
async function vetCopy(copy: Copy | undefined, { reader, version }: { reader: EntryReader; version: string }): Promise<Copy | undefined> {
  if (copy === undefined || copy.vettedBy === version) return copy;
  const content = await vetContent(copy.content, reader).catch(() => undefined); // fetched again in any case
  return content === undefined ? undefined : { ...copy, content };
}

/** A config that could not be proven at first may still be good: the network may have been down. */
async function confirmForever(applier: Applier, { log, signal }: { log: Log; signal: AbortSignal }): Promise<void> {
  for (let failures = 0; !signal.aborted; failures = applier.proven() ? 0 : failures + 1) {
    await applier
      .confirm()
      .catch((error: unknown) => log.warn({ event: 'clash-confirm-failed', error }, 'cannot store the last good config'));
    await delay(failures < 3 ? FIRST_CONFIRM_MS : backoff(failures - 3, CONFIRM), undefined, { signal, ref: false }).catch(() => undefined); // stopped
  }
}
