import { setTimeout as delay } from 'node:timers/promises';
import { fieldsOf, textOf } from '../io/untrusted.ts';
import type { Log } from '../telemetry/log.ts';
import type { Kubernetes } from '../kubernetes/client.ts';

/** Decides whether images may be rewritten: only nodes with an agent can pull rewritten names. */
export interface Gate {
  isOpen(): boolean;
}

const POLL_INTERVAL_MS = 3_000;
/** Share of the nodes that must have a ready agent. */
const MIN_READY_SHARE = 0.9;
/** How long fewer agents may be ready before rewriting stops. A restarted agent is usually back
 *  before the kubelet tries again, whereas a pod that was not rewritten in the meantime keeps
 *  pulling from upstream for its whole life. See docs/decisions/gate-patience.md. */
const PATIENCE_MS = 10_000;
/** A DaemonSet older than this is assumed to have been fully ready before. Otherwise one broken
 *  node would keep a restarted webhook from rewriting. */
const ASSUMED_READY_AGE_MS = 3_600_000;

/** Watches the agents' DaemonSet in the background, so that no review waits for the API server.
 *
 *  The gate opens once every node has had a ready agent. It closes when fewer than 90 % of the
 *  nodes have had one for 10 s, or when the DaemonSet is deleted. While the API server does not
 *  answer, the gate does not change. */
export function watchAgents(
  kubernetes: Kubernetes,
  { namespace, daemonSet }: { namespace: string; daemonSet: string },
  { log, signal }: { log: Log; signal: AbortSignal },
): Gate {
  const path = `/apis/apps/v1/namespaces/${namespace}/daemonsets/${daemonSet}`;
  let wasFullyReady = false;
  let open = false;
  let lastEnoughAt = 0;

  async function poll(): Promise<void> {
    const found = fieldsOf(await kubernetes.get(path, signal));
    const status = fieldsOf(found['status']);
    const [ready, desired] = [Number(status['numberReady'] ?? 0), Number(status['desiredNumberScheduled'] ?? 0)];
    const created = Date.parse(textOf(fieldsOf(found['metadata'])['creationTimestamp']) ?? '');
    if (desired > 0 && (ready >= desired || Date.now() - created > ASSUMED_READY_AGE_MS)) wasFullyReady = true;
    const time = performance.now();
    const isEnough = ready >= MIN_READY_SHARE * desired;
    if (isEnough) lastEnoughAt = time;
    const isPatient = open && time - lastEnoughAt < PATIENCE_MS;
    const shouldBeOpen = wasFullyReady && desired > 0 && (isEnough || isPatient);
    if (shouldBeOpen && !open) log.info({ event: 'rewriting-begun', ready, desired }, 'the agents are ready; rewriting images');
    if (!shouldBeOpen && open) log.warn({ event: 'rewriting-paused', ready, desired }, 'too few agents are ready; pausing rewriting');
    open = shouldBeOpen;
  }

  async function watch(): Promise<void> {
    let reported = '';
    while (!signal.aborted) {
      try {
        await poll();
        reported = '';
      } catch (error) {
        if (signal.aborted) return;
        const { message } = error as Error;
        if (message !== reported) {
          log.warn({ event: 'agents-not-seen', open, error }, 'cannot read the state of the agents; assuming no change');
        }
        reported = message;
      }
      await delay(POLL_INTERVAL_MS, undefined, { signal, ref: false }).catch(() => undefined); // aborted: the loop ends
    }
  }
  void watch();
  return { isOpen: () => open };
}
