import { parentPort, workerData } from 'node:worker_threads';
import { fieldsOf, textOf } from '../io/untrusted.ts';
import { parseScope } from '../pull-secrets/keyring.ts';
import type { PullSecret } from '../pull-secrets/secret-index.ts';
import { reviewParsed, reviewPod } from './admission-review.ts';
import { pullSecretNames } from './pod-secrets.ts';
import { createPolicy } from './policy.ts';
import type { KnownSecrets, MessageFromThread, MessageToThread, ReviewRequest, SecretsReply, WorkerConfig } from './review-thread.ts';

// Reviews of large pods: parsing them would delay all other reviews. Only the main thread knows the
// pull secrets, so this thread asks it for those of the pod.

const { webhook, registry } = workerData as WorkerConfig;
let secrets: readonly (PullSecret | undefined)[] | undefined;
const policy = createPolicy(webhook, registry.upstreams, { ...registry, secretsOf: () => secrets });
/** Reviews that wait for the secrets of their pods. */
const waiting = new Map<number, { document: unknown; gateOpen: boolean }>();

parentPort?.on('message', (message: MessageToThread) => {
  if ('body' in message) begin(message);
  else finish(message);
});

function begin({ id, body, gateOpen, isTrusted }: ReviewRequest): void {
  const text = Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString();
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    return send({ id, reviewed: reviewPod(text, { policy, gateOpen: () => gateOpen }) });
  }
  const request = fieldsOf(fieldsOf(document)['request']);
  waiting.set(id, { document, gateOpen });
  if (!isTrusted) return finish({ id, secrets: undefined });
  send({ id, wanted: { namespace: textOf(request['namespace']) ?? '', names: pullSecretNames(fieldsOf(request['object'])) } });
}

function finish({ id, secrets: known }: SecretsReply): void {
  const review = waiting.get(id);
  if (review === undefined) return;
  waiting.delete(id);
  secrets = known?.map((secret) => secret && { ...secret, entries: secret.entries.flatMap(withScope) });
  send({ id, reviewed: reviewParsed(review.document, { policy, gateOpen: () => review.gateOpen }) });
}

function withScope(entry: NonNullable<KnownSecrets[number]>['entries'][number]): PullSecret['entries'][number][] {
  const scope = parseScope(entry.registry);
  return scope === undefined ? [] : [{ ...entry, scope }];
}

function send(message: MessageFromThread): void {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
  parentPort?.postMessage(message);
}
