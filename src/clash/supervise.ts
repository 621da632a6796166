import { randomBytes } from 'node:crypto';
import { resolve as resolvePath } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { ClashConfig } from '../config/schema.ts';
import type { Log } from '../telemetry/log.ts';
import { CONFIG, createApplier, type Outcome } from './apply.ts';
import { createController } from './controller.ts';
import { openCopies, type Copy } from './copies.ts';
import { ClashError, type Fields } from './document.ts';
import type { Way } from './download.ts';
import { createCustom, createResourceFeeds, createUsers, followSubscription, ownProxy, type SubscriptionState } from './feeds.ts';
import type { User } from './locked.ts';
import { createMihomo } from './mihomo.ts';
import { createOffers } from './offers.ts';
import { prove } from './prove.ts';
import { createRedactor } from './redact.ts';
import type { Inputs } from './render.ts';
import { readStatus, type NodeStatus } from './status.ts';
import type { UserInfo } from './userinfo.ts';

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
export interface ClashStatus {
  mode: ClashConfig['mode'];
  mihomo: { version: string; running: boolean; restarts: number };
  config: { proven: boolean; problem: string | undefined; notes: string[] };
  group: string | undefined;
  chosen: string | undefined;
  traffic: { uploaded: number; downloaded: number; connections: number };
  subscriptions: ({ name: string; fetchedAt: string | undefined; nodes: number; problem: string | undefined } & UserInfo)[];
  nodes: NodeStatus[];
}

export interface Clash {
  /** The proxy takes connections. */
  ready(): boolean;
  status(): Promise<ClashStatus>;
  /** Resolves when mihomo has gone, after `signal`. */
  ended: Promise<void>;
}

/** Milliseconds. */
const READY_INTERVAL = 25;
const LOOK_INTERVAL = 2000;
const CONFIRM_INTERVAL = 15_000;

/** Runs mihomo with what the configuration and the subscriptions make of it. Returns without waiting for either: the proxy is
 *  there within a second, and refuses until it has a node.
 *  @throws ClashError: mihomo cannot be run; Error (EACCES …): its directory cannot be written */
export async function superviseClash({ own, wayOf, log, env, counted, signal }: ClashOptions): Promise<Clash> {
  const redactor = createRedactor();
  const secret = randomBytes(24).toString('base64url');
  redactor.add(secret);
  const copies = await openCopies(resolvePath(own.directory), own.geodata);
  const mihomo = await createMihomo({
    binary: own.mihomo,
    directory: copies.directory,
    configFile: copies.path(CONFIG),
    log,
    redactor,
    env,
  });
  const controller = createController({ ...own.controller, secret });
  const readUsers = createUsers(own, redactor);
  const readCustom = createCustom(own, redactor);
  const proveNow = async (group: string): Promise<boolean> => {
    return prove(group, { controller, proxy: proofProxy(own, applier.inputs().users), url: own.healthCheck.url, signal });
  };
  const applier = createApplier({ context: { own, secret }, copies, mihomo, controller, prove: proveNow, log });

  const known = new Map<string, Copy>();
  for (const { name } of own.subscriptions) {
    const copy = await copies.readCopy(name);
    if (copy === undefined) continue;
    known.set(name, copy);
    if (copy.content.kind === 'clash') redactor.addNodes(copy.content.document['proxies']);
  }
  const custom = await readCustom().catch((error: unknown) => tellCustom(error, log));
  await applier.begin({
    subscriptions: new Map([...known].map(([name, { content }]) => [name, content])),
    users: await readUsers(),
    custom: custom?.document,
    resources: await copies.resources(),
    banned: new Set(),
  });

  const ended = mihomo.run(signal);
  let up = false;
  const watched = (async () => {
    for (let pause = READY_INTERVAL; !signal.aborted && !up; pause = Math.min(LOOK_INTERVAL, pause * 1.2)) {
      up = await controller.isUp(own.ports.proxy);
      if (!up) await delay(pause, undefined, { signal }).catch(() => undefined); // stopped
    }
  })();

  let followResources: (() => void) | undefined;
  const offer = createOffers({ applier, redactor, log, signal, counted, changed: () => followResources?.() });
  const context = { own, wayOf, copies, redactor, offer, applier, version: mihomo.version, log, signal };
  const states: SubscriptionState[] = [];
  void watched.then(() => {
    if (signal.aborted) return;
    const follow = createResourceFeeds(context);
    followResources = () => follow(applier.rendered()?.resources ?? []);
    followResources();
    void confirmForEver();
    void lookForEver();
  });
  for (const subscription of own.subscriptions) {
    states.push(
      followSubscription(subscription, known.get(subscription.name), {
        ...context,
        offer: async (change) => (await watched, offer(change)),
      }),
    );
  }

  async function confirmForEver(): Promise<void> {
    while (!signal.aborted) {
      if (!applier.proven()) await applier.confirm();
      await delay(CONFIRM_INTERVAL, undefined, { signal, ref: false }).catch(() => undefined); // stopped
    }
  }

  /** Files that change: passwords, and the user's own config. */
  async function lookForEver(): Promise<void> {
    let users = JSON.stringify(applier.inputs().users);
    let version = custom?.version;
    const watch = async (source: string, change: (inputs: Inputs) => Inputs) =>
      offer({ source, change, applied: () => Promise.resolve(), refused: () => undefined });
    while (!signal.aborted) {
      await delay(LOOK_INTERVAL, undefined, { signal, ref: false }).catch(() => undefined); // stopped
      try {
        const read = await readUsers();
        const document = await readCustom();
        if (JSON.stringify(read) !== users) {
          users = JSON.stringify(read);
          await watch('clash.users', (inputs) => ({ ...inputs, users: read }));
        }
        if (document !== undefined && document.version !== version) {
          version = document.version;
          await watch('clash.configFile', (inputs) => ({ ...inputs, custom: document.document, banned: new Set() }));
        }
      } catch (error) {
        if (version !== 'wrong') tellCustom(error, log);
        version = 'wrong';
      }
    }
  }

  return {
    ready: () => up && !signal.aborted,
    ended,

    async status() {
      const rendered = applier.rendered();
      const names = own.subscriptions.map(({ name }) => name);
      const nothing = { chosen: undefined, nodes: [] as NodeStatus[], traffic: { uploaded: 0, downloaded: 0, connections: 0 } };
      const { chosen, nodes, traffic } = await readStatus(controller, rendered, names).catch(() => nothing);
      return {
        mode: own.mode,
        mihomo: { version: mihomo.version, running: mihomo.pid() !== undefined, restarts: mihomo.restarts() },
        config: {
          proven: applier.proven(),
          problem: applier.problem(),
          notes: (rendered?.notes ?? []).map((note) => redactor.clean(note)).slice(0, 50),
        },
        group: rendered?.main,
        chosen,
        traffic,
        subscriptions: states.map(({ name, fetchedAt, userInfo, problem }) => ({
          name,
          fetchedAt: fetchedAt === undefined ? undefined : new Date(fetchedAt).toISOString(),
          nodes: nodes.filter(({ subscription }) => subscription === name).length,
          ...userInfo,
          problem,
        })),
        nodes,
      };
    },
  };
}

/** The proxy's port; where it is off, the shared one. */
function proofProxy(own: ClashConfig, users: readonly User[]): string {
  const [user] = users;
  if (own.ports.proxy !== 0 || user === undefined) return ownProxy(own);
  return `http://${encodeURIComponent(user.username)}:${encodeURIComponent(user.password)}@127.0.0.1:${own.ports.shared}`;
}

function tellCustom(error: unknown, log: Log): { version: string; document: Fields } | undefined {
  const { code, message } = error as NodeJS.ErrnoException;
  log.error(error instanceof ClashError ? message : `a file of clash.users or clash.configFile cannot be read (${code ?? message})`);
  return undefined;
}
