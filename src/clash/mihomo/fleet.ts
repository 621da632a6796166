import { setTimeout as delay } from 'node:timers/promises';
import { backoff } from '../../async/backoff.ts';
import type { Log } from '../../telemetry/log.ts';
import type { Instance, Spec } from './instance.ts';

/** The listeners for clients. */
export interface Entrances {
  /** Sends new connections to these ports; undefined: they wait. */
  use(ports: Instance['ports'] | undefined): void;
  links(): { ports: Instance['ports'] }[];
  /** Ends idle connections to these ports. */
  shed(ports: Instance['ports']): void;
}

export interface FleetOptions {
  entrances: Entrances;
  /** @throws Error: it does not start */
  start: (spec: Spec, first?: string) => Promise<Instance>;
  log: Log;
  signal: AbortSignal;
}

/** The mihomo processes: the one in use, at most one on trial, and former ones with open
 *  connections. */
export interface Fleet {
  /** Starts the first process, however often that fails. Returns at once. */
  begin(spec: Spec): void;
  /** The process in use; undefined: it is being started. */
  live(): Instance | undefined;
  /** Starts another process, which no client reaches. @throws Error: it does not start */
  trial(spec: Spec): Promise<Instance>;
  /** Sends new connections to the process that was on trial, and restarts it whenever it ends; the
   *  former one ends with its last connection. */
  promote(instance: Instance): void;
  /** How often the process in use had to be restarted. */
  restarts(): number;
  /** Resolves when all processes have ended, after `signal`. */
  ended: Promise<void>;
}

/** The maximum number of former processes with connections: each takes as much memory as the one in
 *  use. */
const MAX_FORMER = 2;
/** The time limit of a download when further changes wait for its process. */
const FORMER_LIMIT_MS = 600_000;
const FORMER_POLL_MS = 250;
/** How long new connections wait at the start until a node has been found. */
const FIRST_NODE_LIMIT_MS = 3000;
const RESTART = { baseMs: 250, capMs: 15_000 };
/** A process that lived this long did not end because of its config. */
const STEADY_MS = 60_000;

export function createFleet({ entrances, start, log, signal }: FleetOptions): Fleet {
  let live: Instance | undefined;
  let restarts = 0;
  const former = createFormer({ entrances, log, signal });
  const all = new Set<Instance>();
  const launching = new Set<Promise<Instance>>();
  const ended = Promise.withResolvers<void>();

  async function launch(spec: Spec, first?: string): Promise<Instance> {
    const starting = start(spec, first);
    launching.add(starting);
    try {
      const instance = await starting;
      all.add(instance);
      void instance.exited.then(() => all.delete(instance));
      return instance;
    } finally {
      launching.delete(starting);
    }
  }

  /** Sends new connections to this process: at once if it replaces another one, else when it has
   *  found a node. */
  function enter(instance: Instance): void {
    const replaces = live !== undefined;
    live = instance;
    const limit = delay(FIRST_NODE_LIMIT_MS, undefined, { ref: false });
    const admitted = replaces ? Promise.resolve() : Promise.race([instance.steering.settle(), limit]);
    void admitted.then(() => {
      if (live === instance) entrances.use(instance.ports);
    });
    const since = performance.now();
    void instance.exited.then(async (code) => {
      if (live !== instance || signal.aborted) return;
      live = undefined;
      entrances.use(undefined);
      restarts++;
      log.error({ event: 'mihomo-ended', code }, 'mihomo exited; restarting it');
      await keepStarting(instance.spec, performance.now() - since > STEADY_MS ? 0 : 1);
    });
  }

  async function keepStarting(spec: Spec, failures = 0): Promise<void> {
    for (let attempt = failures; !signal.aborted && live === undefined; attempt++) {
      if (attempt > 0) await delay(backoff(attempt - 1, RESTART), undefined, { signal }).catch(() => undefined); // stopped
      try {
        const instance = await launch(spec);
        if (signal.aborted) return;
        if (live !== undefined) return await instance.stop(); // a changed config has replaced it in the meantime
        return enter(instance);
      } catch (error) {
        log.error({ event: 'mihomo-not-started', error }, 'cannot start mihomo; will retry');
      }
    }
  }

  const stopAll = async () => {
    await Promise.allSettled(launching);
    await Promise.all([...all].map((instance) => instance.stop()));
    ended.resolve();
  };
  if (signal.aborted) void stopAll();
  else signal.addEventListener('abort', () => void stopAll(), { once: true });

  return {
    begin: (spec) => void keepStarting(spec),
    live: () => live,
    async trial(spec) {
      await former.makeRoom();
      return launch(spec, live?.steering.chosen());
    },
    promote(instance) {
      const before = live;
      enter(instance);
      if (before !== undefined) void former.retire(before);
    },
    restarts: () => restarts,
    ended: ended.promise,
  };
}

/** Former processes, which still serve their open connections. */
interface Former {
  /** Waits until there are few of them, so that memory stays bounded. */
  makeRoom(): Promise<void>;
  /** Ends the process with its last connection. */
  retire(instance: Instance): Promise<void>;
}

function createFormer({ entrances, log, signal }: Omit<FleetOptions, 'start'>): Former {
  const former = new Set<Instance>();
  const pause = () => delay(FORMER_POLL_MS, undefined, { signal }).catch(() => undefined); // stopped
  return {
    async makeRoom() {
      const until = Date.now() + FORMER_LIMIT_MS;
      while (former.size >= MAX_FORMER && !signal.aborted) {
        if (Date.now() > until) {
          const [oldest] = former;
          log.warn(
            { event: 'mihomo-connections-cut' },
            'cut connections that used an old config for ten minutes, because further changes are waiting',
          );
          await oldest?.stop();
          break;
        }
        await pause();
      }
    },
    async retire(instance) {
      former.add(instance);
      do {
        await pause();
        entrances.shed(instance.ports);
      } while (!signal.aborted && entrances.links().some(({ ports }) => ports === instance.ports));
      await instance.stop();
      former.delete(instance);
    },
  };
}
