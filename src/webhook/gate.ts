import { setTimeout as delay } from 'node:timers/promises';
import type { Log } from '../telemetry/log.ts';
import { fieldsOf, textOf } from '../io/untrusted.ts';
import type { Kubernetes } from './kubernetes.ts';

export interface Gate {
  isOpen(): boolean;
}

/** Milliseconds between two looks. */
const INTERVAL = 3000;
const SHARE = 0.9;
/** How long too few may be ready before rewriting stops, in ms. An agent that is restarted is back before the kubelet pulls again; a pod that
 *  was not rewritten meanwhile would go to upstream by itself for good, and where that hangs hold up every pull of its node. */
const PATIENCE = 10_000;
/** A DaemonSet of this age has been fully ready before, as far as anybody who starts now can know: one broken node of many must not
 *  stop a webhook that was restarted. */
const OLD = 3_600_000;

/** Open once the DaemonSet has been fully ready, and until fewer than nine of ten of its nodes have been for a while, or it is gone. It is
 *  looked at in the background: no review waits for it, and an API server that is away changes nothing. */
export function watchAgents(
  kubernetes: Kubernetes,
  { namespace, daemonSet }: { namespace: string; daemonSet: string },
  { log, signal }: { log: Log; signal: AbortSignal },
): Gate {
  const path = `/apis/apps/v1/namespaces/${namespace}/daemonsets/${daemonSet}`;
  let wasReady = false;
  let open = false;
  let enoughAt = 0;

  async function look(): Promise<void> {
    const found = fieldsOf(await kubernetes.get(path, signal));
    const status = fieldsOf(found['status']);
    const [ready, desired] = [Number(status['numberReady'] ?? 0), Number(status['desiredNumberScheduled'] ?? 0)];
    const born = Date.parse(textOf(fieldsOf(found['metadata'])['creationTimestamp']) ?? '');
    if (desired > 0 && (ready >= desired || Date.now() - born > OLD)) wasReady = true;
    const time = performance.now();
    if (ready >= SHARE * desired) enoughAt = time;
    const now = wasReady && desired > 0 && (ready >= SHARE * desired || (open && time - enoughAt < PATIENCE));
    if (now !== open)
      log.info(
        { event: now ? 'rewriting-begun' : 'rewriting-paused', ready, desired },
        now ? 'the nodes have their agents: images are rewritten' : 'agents are missing: nothing is rewritten',
      );
    open = now;
  }

  async function watch(): Promise<void> {
    let complained = '';
    while (!signal.aborted) {
      try {
        await look();
        complained = '';
      } catch (error) {
        if (signal.aborted) return;
        const { message } = error as Error;
        if (message !== complained)
          log.warn({ event: 'agents-not-seen', error }, 'the state of the agents cannot be seen; it is taken as it was');
        complained = message;
      }
      await delay(INTERVAL, undefined, { signal, ref: false }).catch(() => undefined); // the loop's condition tells
    }
  }
  void watch();
  return { isOpen: () => open };
}
