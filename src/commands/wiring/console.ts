import { findPackageJSON } from 'node:module';
import { dirname, join } from 'node:path';
import own from '../../../package.json' with { type: 'json' };
import { serveApi, type ApiHandlers } from '../../console/api-server.ts';
import { openApiDocument } from '../../console/api/openapi.ts';
import { createEventStream } from '../../console/event-stream.ts';
import { exposedConsole } from '../../console/exposed.ts';
import { createActionHandlers } from '../../console/handlers/actions.ts';
import { createClashHandlers } from '../../console/handlers/clash.ts';
import { createImagesHandlers } from '../../console/handlers/images.ts';
import { createPlacesHandlers } from '../../console/handlers/places.ts';
import { createRulesHandlers } from '../../console/handlers/rules.ts';
import { createSessionHandlers, createSessionLookup } from '../../console/handlers/sessions.ts';
import { createTrafficHandlers } from '../../console/handlers/traffic.ts';
import { createUpkeepHandlers } from '../../console/handlers/upkeep.ts';
import { createInventoryService, type InventoryService } from '../../console/inventory-service.ts';
import { createJobs, type Jobs } from '../../console/jobs.ts';
import { incompleteTagOf } from '../../console/incomplete-tags.ts';
import { createLive } from '../../console/live.ts';
import { openPage } from '../../console/page.ts';
import { createOtherReplicas, type OtherReplicas } from '../../console/replicas.ts';
import { createSessions, type Sessions } from '../../console/sessions.ts';
import type { RequestHandler } from '../../server/listen.ts';
import { createBasicAuth } from '../../server/basic-auth.ts';
import { openHtpasswd } from '../../server/htpasswd.ts';
import { createPins, type Pins } from '../../upkeep/pins.ts';
import type { PlannedRun } from '../../upkeep/planned-run.ts';
import type { Registry } from '../../oci/registry.ts';
import type { Host } from '../command.ts';
import type { ImagesInside } from './images-inside.ts';
import { createConsoleActions } from './console-actions.ts';
import { createPodsOf } from './console-pods.ts';
import { createConsoleNames } from './console-names.ts';
import type { Observation } from './observation.ts';
import { isWarming } from './warm.ts';
import { pruneTiming } from './prune-limits.ts';
import { configuredUpstreams, otherUpstream } from './console-upstreams.ts';
import { askWebhook } from './console-webhook.ts';
import { describeStorage } from './console-storage.ts';
import type { Storage } from './storage.ts';

export interface ConsoleContext {
  images: Registry;
  inside: ImagesInside;
  storage: Storage;
  observation: Observation;
  /** The next pruning of this replica. */
  pruning: PlannedRun;
}

export interface Console {
  /** The handler of a path; undefined: the path does not belong to the console. */
  at(this: void, path: string): RequestHandler | undefined;
  /** The console for users outside the cluster, where every request requires a login. */
  exposed: RequestHandler;
  close(this: void): Promise<void>;
}

/** Where `npm run build` puts the page, seen from this file and from the bundle alike. */
const PAGE = join(dirname(findPackageJSON(import.meta.url) ?? ''), 'dist/console');

/** The console of this replica: its page, if that was built, and its API.
 *  @throws OciError UNAVAILABLE: registry.console.users cannot be read */
export async function openConsole(host: Host, context: ConsoleContext): Promise<Console> {
  const { config, log, stop } = host;
  const { console: settings, admin, listen } = config.registry;
  const { images, inside, storage, observation } = context;
  const store = storage.remote ?? storage.local;
  const replicas = createOtherReplicas({ others: inside.others, port: admin.port });
  const names = createConsoleNames(host.config);
  const inventory = createInventoryService({ store, intervalMs: settings.inventoryInterval, log, stop });
  const pods = createPodsOf(host, names);
  const pins = createPins(store);
  const jobs = createJobs({ log, stop });
  const snapshot = createLive({
    downloads: inside.downloads.list,
    imageOf: (repository) => ({ name: names.nameOf(repository), tag: incompleteTagOf(inventory.current(), repository) }),
    totals: observation.history.totals,
    replica: listen.host,
  });
  const sessions = await openSessions(settings, log);
  const actions = createConsoleActions(host, { images, inside, storage });
  const handlers = createHandlers(host, context, { replicas, names, inventory, pods, pins, jobs, snapshot, sessions, actions });
  const findSession = createSessionLookup({ sessions, replicas });
  const api = serveApi({ handlers, findSession, log });
  const asked = { query: undefined, body: undefined, session: undefined, token: undefined, alone: false, signal: stop };
  const request = { ...asked, client: { address: '', isGone: () => false }, setSession: () => undefined };
  const events = createEventStream({
    snapshots: { downloads: async () => handlers.downloads(request), jobs: async () => handlers.jobs(request) },
  });
  const page = await openPage(PAGE);
  if (page === undefined) log.info({ event: 'console-page-missing' }, 'the console page is not built; run npm run build');
  let document: Buffer | undefined;
  const documented: RequestHandler = (_request, response) => {
    document ??= Buffer.from(JSON.stringify(openApiDocument(own.version)));
    response.setHeader('content-type', 'application/json');
    response.end(document);
  };

  const at = (path: string): RequestHandler | undefined => {
    if (path === '/api/events') return events.handler;
    if (path === '/api/openapi.json') return documented;
    if (path === '/api' || path.startsWith('/api/')) return api;
    return page?.has(path) === true || (page !== undefined && path.startsWith('/assets/')) ? page.handler : undefined;
  };
  return {
    at,
    exposed: exposedConsole({ at, findSession }),
    async close() {
      events.close();
      await replicas.close();
    },
  };
}

/** Everything that the handlers of the console share. */
interface Services {
  replicas: OtherReplicas;
  names: ReturnType<typeof createConsoleNames>;
  inventory: InventoryService;
  pods: ReturnType<typeof createPodsOf>;
  pins: Pins;
  jobs: Jobs;
  snapshot: ReturnType<typeof createLive>;
  sessions: Sessions | undefined;
  actions: ReturnType<typeof createConsoleActions>;
}

function createHandlers(host: Host, context: ConsoleContext, services: Services): ApiHandlers {
  const { config, log } = host;
  const { console: settings, listen } = config.registry;
  const { inside, storage, observation } = context;
  const { history, upstreams, nodes, refusals } = observation;
  const { replicas, names, inventory, pods, pins, jobs, snapshot, sessions, actions } = services;
  const store = storage.remote ?? storage.local;
  return {
    ...createTrafficHandlers({
      version: own.version,
      startedAt: observation.startedAt,
      history,
      upstreams,
      inventory,
      snapshot,
      ...describeStorage(config.registry, storage, observation),
      grafana: settings.grafana,
      replicas,
      replica: listen.host,
    }),
    ...createPlacesHandlers({
      configured: configuredUpstreams(config.registry),
      otherUpstream: otherUpstream(config.registry),
      upstreams,
      nodes,
      pods,
      agents: settings.agents,
      webhook: settings.webhook === undefined ? undefined : askWebhook(settings.webhook),
      replicas,
    }),
    ...createClashHandlers({ url: settings.clash, replicas, log }),
    ...createImagesHandlers({ inventory, pods, pins, store, ...names.of(inside.policy) }),
    ...createRulesHandlers({ policy: config.registry.policy, refusals, locate: names.locate, check: actions.check }),
    ...createActionHandlers({ jobs, pins, inventory, replicas, log, locate: names.locate, isHosted: names.isHosted, ...actions }),
    ...createUpkeepHandlers({
      store: storage.records,
      pruning: { planned: context.pruning, interval: pruneTiming(config.registry).interval },
      warming: isWarming(config.registry) ? config.registry.warm : undefined,
      replicas,
    }),
    ...createSessionHandlers({ sessions, replicas, log }),
  };
}

async function openSessions(
  { users, sessionLife }: Host['config']['registry']['console'],
  log: Host['log'],
): Promise<Sessions | undefined> {
  if (users === undefined) return undefined;
  const [authenticate, readUsers] = await Promise.all([createBasicAuth({ file: users, log }), openHtpasswd(users, log)]);
  return createSessions({ authenticate, users: readUsers, lifeMs: sessionLife });
}
