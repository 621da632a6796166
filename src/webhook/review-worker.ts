import { parentPort, workerData } from 'node:worker_threads';
import { reviewPod } from './admission-review.ts';
import { createPolicy } from './policy.ts';
import type { ReviewRequest, WorkerConfig } from './review-thread.ts';

// Reviews of large pods: parsing them would hold up every other review.

const { webhook, registry } = workerData as WorkerConfig;
const policy = createPolicy(webhook, registry.upstreams, registry);

parentPort?.on('message', ({ id, body, gateOpen }: ReviewRequest) => {
  const reviewed = reviewPod(Buffer.from(body).toString(), { policy, gateOpen: () => gateOpen });
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
  parentPort?.postMessage({ id, reviewed });
});
