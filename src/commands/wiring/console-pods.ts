import type { RewriteLine } from '../../console/handlers/places.ts';
import { createPods, type Pods } from '../../console/pods-service.ts';
import { imagesOf } from '../../webhook/pod-images.ts';
import { createPolicy } from '../../webhook/policy.ts';
import { explain, reportPods } from '../../webhook/report.ts';
import type { Host } from '../command.ts';
import { askCluster } from './pods.ts';
import type { ConsoleNames } from './console-names.ts';

/** The images that pods use, and whether they were rewritten, if registry.console.pods is set. */
export function createPodsOf({ config, env, stop }: Host, { locate }: Pick<ConsoleNames, 'locate'>): Pods<RewriteLine> {
  const policy = createPolicy(config.webhook, config.registry.upstreams, config.registry);
  return createPods<RewriteLine>({
    list: config.registry.console.pods ? (signal) => askCluster(env, signal) : undefined,
    imagesOf,
    locate,
    report: (pods) =>
      reportPods(pods, policy).map(({ namespace, pod, container, image, original, reason }) => {
        return { namespace, pod, container, image, original: original ?? null, reason, text: explain(reason) };
      }),
    stop,
  });
}
