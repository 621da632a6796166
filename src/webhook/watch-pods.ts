import { setTimeout as delay } from 'node:timers/promises';
import type { Log } from '../telemetry/log.ts';
import type { Kubernetes } from '../kubernetes/client.ts';
import type { Policy } from './policy.ts';
import { pagesOfPods, reportPods } from './report.ts';

/** Images of the cluster's pods: `rewritten`; `missed`, which would be rewritten if their pods were
 *  created now; `left_alone`, which the rules exclude. */
export type PodImages = Record<'rewritten' | 'missed' | 'left_alone', number>;

export interface WatchPodsOptions {
  policy: Policy;
  /** Milliseconds. */
  interval: number;
  counted(this: void, images: PodImages): void;
  log: Log;
  signal: AbortSignal;
}

/** Counts the images of the cluster's pods repeatedly until `signal` aborts. In policy mode,
 *  nothing else shows that an image was not rewritten: an API server does not report an error that
 *  it ignores. */
export async function watchPods(kubernetes: Kubernetes, options: WatchPodsOptions): Promise<void> {
  const { interval, log, signal } = options;
  let reported = '';
  while (!signal.aborted) {
    try {
      options.counted(await countImages(kubernetes, options));
      reported = '';
    } catch (error) {
      if (signal.aborted) return;
      const { message } = error as Error;
      if (message !== reported) log.warn({ event: 'pods-not-counted', error }, 'cannot list the pods of the cluster; will retry');
      reported = message;
    }
    await delay(interval, undefined, { signal, ref: false }).catch(() => undefined); // aborted: the loop ends
  }
}

async function countImages(kubernetes: Kubernetes, { policy, signal }: WatchPodsOptions): Promise<PodImages> {
  const counts: PodImages = { rewritten: 0, missed: 0, left_alone: 0 };
  for await (const pods of pagesOfPods(kubernetes, signal)) {
    for (const { reason } of reportPods(pods, policy)) {
      counts[reason === 'before' ? 'missed' : reason === 'rewritten' ? 'rewritten' : 'left_alone']++;
    }
  }
  return counts;
}
