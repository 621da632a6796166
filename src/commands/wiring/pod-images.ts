import type { Metrics } from '../../telemetry/metrics.ts';
import { createPolicy } from '../../webhook/policy.ts';
import type { Host } from '../command.ts';

/** @returns sets how many images of pods are in a state of PodImages */
export function createPodImagesMetric(metrics: Metrics): (state: string, count: number) => void {
  const set = metrics.gauge('pod_images', "Images of the cluster's pods: rewritten, missed (they should have been), left_alone.", [
    'state',
  ]);
  return (state, count) => set({ state }, count);
}

/** Counts the images of the cluster's pods, at the interval webhook.watchPods, until the process
 *  stops. */
export async function countPodImages({ config, env, log, stop }: Host, metrics: Metrics): Promise<void> {
  const { watchPods: interval } = config.webhook;
  if (interval === 0) return;
  const [{ connectKubernetes }, { watchPods }] = await Promise.all([
    import('../../kubernetes/client.ts'),
    import('../../webhook/watch-pods.ts'),
  ]);
  const kubernetes = await connectKubernetes(env).catch((error: unknown) => {
    log.warn({ event: 'pods-not-counted', error }, 'no Kubernetes API; not counting the images of pods (webhook.watchPods)');
  });
  if (kubernetes === undefined) return;
  const set = createPodImagesMetric(metrics);
  try {
    await watchPods(kubernetes, {
      policy: createPolicy(config.webhook, config.registry.upstreams, config.registry),
      interval,
      counted: (images) => Object.entries(images).forEach(([state, count]) => set(state, count)),
      log,
      signal: stop,
    });
  } finally {
    await kubernetes.close();
  }
}
