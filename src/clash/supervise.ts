import { randomBytes } from 'node:crypto';
import { resolve as resolvePath } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { ClashConfig } from '../config/schema.ts';
import type { Log } from '../telemetry/log.ts';
import { CONFIG, createApplier, type Applier, type Outcome } from './mihomo/apply.ts';
import { createController } from './mihomo/controller.ts';
import { openCopies, type Copies, type Copy } from './subscription/copies.ts';
import type { Way } from './subscription/download.ts';
import { createResourceFeeds, followSubscription, ownProxy, type SubscriptionState } from './feeds.ts';
import { followFiles, openFiles } from './files.ts';
import type { User } from './config/locked.ts';
import { createEntryReader, type EntryReader } from './mihomo/entry-reader.ts';
import { createMihomo } from './mihomo/mihomo.ts';
import { vetContent } from './mihomo/vet.ts';
import { createOffers, type Offer } from './mihomo/offers.ts';
import { prove } from './mihomo/prove.ts';
import { createRedactor, type Redactor } from './subscription/redact.ts';
import { readStatus, type MihomoStatus, type NodeStatus } from './mihomo/status.ts';
import type { UserInfo } from './subscription/userinfo.ts';

export interface ClashOptions {
  own: ClashConfig;
  /** The way out that the configuration's word means: direct, or the URL of a proxy. */
  wayOf: (proxy: string) => Way;
  log: Log;
  env: NodeJS.ProcessEnv;
  counted: (outcome: Outcome | 'failed') => void;
  signal: AbortSignal;
}

/** What /status shows. */
export interface ClashStatus extends MihomoStatus {
  mode: ClashConfig['mode'];
  mihomo: { version: string; running: boolean; restarts: number };
  config: { proven: boolean; problem: string | undefined; notes: string[] };
  /** The group that most goes through. */
  group: string;
  subscriptions: SubscriptionStatus[];
}

interface SubscriptionStatus extends UserInfo {
  name: string;
  /** Of what is in use, ISO 8601. */
  fetchedAt: string | undefined;
  nodes: number;
  /** Why the last attempt to fetch or use it failed. */
  problem: string | undefined;
}

export interface Clash {
  /** The proxy takes connections. */
  ready(): boolean;
  status(): Promise<ClashStatus>;
  /** Resolves when mihomo has gone, after `signal`. */
  ended: Promise<void>;
}

/** Milliseconds. */
const FIRST_PAUSE = 25;
const LAST_PAUSE = 1000;
const CONFIRM_INTERVAL = 15_000;

/** Runs mihomo with what the configuration and the subscriptions make of it. Returns without waiting for either: the proxy is
 *  there within a second, and refuses until it has a node.
 *  @throws ClashError: mihomo or a password's file cannot be used; Error (EACCES …): the directory cannot be written */
export async function superviseClash({ own, wayOf, log, env, counted, signal }: ClashOptions): Promise<Clash> {
  const redactor = createRedactor();
  const secret = randomBytes(24).toString('base64url');
  redactor.add(secret);
  const copies = await openCopies(resolvePath(own.directory), own.geodata);
  const { directory } = copies;
  const mihomo = await createMihomo({ binary: own.mihomo, directory, configFile: copies.path(CONFIG), log, redactor, env });
  const controller = createController({ ...own.controller, secret });
  const proveNow = (group: string) =>
    prove(group, { controller, proxy: proofProxy(own, applier.inputs().users), url: own.healthCheck.url, signal });
  const applier = createApplier({ context: { own, secret }, copies, mihomo, controller, prove: proveNow, log });

  const files = openFiles(own, redactor);
  const reader = createEntryReader({ binary: own.mihomo, directory, env });
  const known = await readCopies(own, { copies, redactor, reader, version: mihomo.version });
  await applier.begin({
    subscriptions: new Map([...known].map(([name, { content }]) => [name, content])),
    users: await files.users(),
    custom: await files.custom().catch((error: Error) => {
      log.error(error.message);
      return undefined;
    }),
    resources: await copies.resources(),
    banned: new Set(),
  });

  const ended = mihomo.run(signal);
  let up = false;
  const whenUp = untilUp(() => controller.isUp(own.ports.proxy), signal).then(() => (up = true));
  const offerNow = createOffers({
    applier,
    redactor,
    log,
    signal,
    counted,
    changed: () => followResources(applier.rendered()?.resources ?? []),
  });
  const offer: Offer = async (change) => (await whenUp, offerNow(change));
  const context = { own, wayOf, copies, redactor, offer, version: mihomo.version, reader, log, signal };
  const followResources = createResourceFeeds(context);
  followResources(applier.rendered()?.resources ?? []);
  const states = own.subscriptions.map((subscription) => followSubscription(subscription, known.get(subscription.name), context));
  const fileProblem = followFiles({ files, inputs: applier.inputs(), offer, log, signal });
  void whenUp.then(() => confirmForEver(applier, { log, signal }));

  return {
    ready: () => up && !signal.aborted,
    ended,
    async status() {
      const asked = { main: applier.main(), rendered: applier.rendered(), subscriptions: own.subscriptions.map(({ name }) => name) };
      const told = await readStatus(controller, asked).catch(() => NOTHING_TOLD);
      return {
        mode: own.mode,
        mihomo: { version: mihomo.version, running: mihomo.pid() !== undefined, restarts: mihomo.restarts() },
        config: {
          proven: applier.proven(),
          problem: applier.problem() ?? fileProblem(),
          notes: (asked.rendered?.notes ?? []).slice(0, MOST_NOTES).map((note) => redactor.clean(note)),
        },
        group: asked.main,
        ...told,
        subscriptions: states.map((state) => describeSubscription(state, told.nodes)),
      };
    },
  };
}

const NOTHING_TOLD: MihomoStatus = { chosen: undefined, nodes: [], traffic: { uploaded: 0, downloaded: 0, connections: 0 } };
const MOST_NOTES = 50;

function describeSubscription({ name, fetchedAt, userInfo, problem }: SubscriptionState, nodes: readonly NodeStatus[]): SubscriptionStatus {
  return {
    name,
    fetchedAt: fetchedAt === undefined ? undefined : new Date(fetchedAt).toISOString(),
    nodes: nodes.filter(({ subscription }) => subscription === name).length,
    ...userInfo,
    problem,
  };
}

/** The subscriptions as they were fetched last. */
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

/** A copy that another version of mihomo has read is read again. Undefined: this one can use nothing of it. */
async function vetCopy(copy: Copy | undefined, { reader, version }: { reader: EntryReader; version: string }): Promise<Copy | undefined> {
  if (copy === undefined || copy.vettedBy === version) return copy;
  const content = await vetContent(copy.content, reader).catch(() => undefined); // fetched again in any case
  return content === undefined ? undefined : { ...copy, content };
}

async function untilUp(isUp: () => Promise<boolean>, signal: AbortSignal): Promise<void> {
  for (let pause = FIRST_PAUSE; !signal.aborted && !(await isUp()); pause = Math.min(LAST_PAUSE, pause * 1.2)) {
    await delay(pause, undefined, { signal }).catch(() => undefined); // stopped
  }
}

/** A config that could not be proven when it came may be good all the same: the network was away. */
async function confirmForEver(applier: Applier, { log, signal }: { log: Log; signal: AbortSignal }): Promise<void> {
  while (!signal.aborted) {
    await applier.confirm().catch((error: unknown) => log.warn({ error }, 'what was good last cannot be kept'));
    await delay(CONFIRM_INTERVAL, undefined, { signal, ref: false }).catch(() => undefined); // stopped
  }
}

/** The proxy's port; where it is off, the shared one. */
function proofProxy(own: ClashConfig, users: readonly User[]): string {
  const [user] = users;
  if (own.ports.proxy !== 0 || user === undefined) return ownProxy(own);
  return `http://${encodeURIComponent(user.username)}:${encodeURIComponent(user.password)}@127.0.0.1:${own.ports.shared}`;
}
