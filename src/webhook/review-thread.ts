import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { WebhookConfig } from '../config/schema.ts';
import type { PullSecret } from '../pull-secrets/secret-index.ts';
import type { ServedRegistry } from './image-rules.ts';
import type { SecretLookup } from './pod-secrets.ts';
import type { Reviewed } from './admission-review.ts';

export interface WorkerConfig {
  webhook: WebhookConfig;
  registry: ServedRegistry;
}
/** Secrets in a form that can be sent to a thread: without functions. */
export type KnownSecrets = readonly (
  | (Omit<PullSecret, 'entries'> & { entries: readonly Omit<PullSecret['entries'][number], 'scope'>[] })
  | undefined
)[];
export interface ReviewRequest {
  id: number;
  /** In memory that is shared with the thread. */
  body: Uint8Array<SharedArrayBuffer>;
  gateOpen: boolean;
  /** Whether the review is from an API server. */
  isTrusted: boolean;
}
export interface SecretsReply {
  id: number;
  secrets: KnownSecrets | undefined;
}
export type MessageToThread = ReviewRequest | SecretsReply;
export type MessageFromThread =
  | { id: number; reviewed: Reviewed }
  | { id: number; wanted: { namespace: string; names: readonly string[] } };

/** A thread for reviews of large pods. The first such review starts it; it ends when none has
 *  arrived for a while. */
export interface ReviewThread {
  /** Reads `body` until the promise resolves; if it rejects, the thread may still read.
   *  @throws Error: the thread has failed, or took too long */
  review(body: Uint8Array<SharedArrayBuffer>, from: { gateOpen: boolean; isTrusted: boolean }): Promise<Reviewed>;
  close(): Promise<void>;
}

/** API servers wait 2 s. */
const TIMEOUT_MS = 1_800;
const IDLE_MS = 60_000;
const RESOURCES = { maxOldGenerationSizeMb: 64, maxYoungGenerationSizeMb: 4 };

export function createReviewThread(config: WorkerConfig, secretsOf: SecretLookup): ReviewThread {
  const pending = new Map<number, { resolve: (reviewed: Reviewed) => void; reject: (error: Error) => void }>();
  let worker: Worker | undefined;
  let idle: NodeJS.Timeout | undefined;
  let last = 0;

  function start(): Worker {
    // Its environment names the compile cache: without that it would strip types, which takes time and 20 MB.
    const file = new URL(`./review-worker${extname(import.meta.filename)}`, import.meta.url);
    const started = new Worker(file, { workerData: config, resourceLimits: RESOURCES });
    started.on('message', (message: MessageFromThread) => {
      const { id } = message;
      if ('reviewed' in message) pending.get(id)?.resolve(message.reviewed);
      else send(started, { id, secrets: withoutScopes(secretsOf(message.wanted.namespace, message.wanted.names)) });
    });
    started.on('error', (error) => {
      if (worker === started) worker = undefined; // the next review starts another one
      for (const { reject } of pending.values()) reject(error as Error);
    });
    started.unref();
    return started;
  }

  async function stop(): Promise<void> {
    const stopping = worker;
    worker = undefined;
    for (const { reject } of pending.values()) reject(new Error('the thread for large reviews was stopped'));
    await stopping?.terminate();
  }

  return {
    async review(body, from) {
      clearTimeout(idle);
      worker ??= start();
      const id = ++last;
      const { promise, resolve, reject } = Promise.withResolvers<Reviewed>();
      pending.set(id, { resolve, reject });
      const timeout = setTimeout(() => void stop(), TIMEOUT_MS);
      try {
        send(worker, { id, body, ...from });
        return await promise;
      } finally {
        clearTimeout(timeout);
        pending.delete(id);
        idle = setTimeout(() => void stop(), IDLE_MS).unref();
      }
    },
    async close() {
      clearTimeout(idle);
      await stop();
    },
  };
}

function send(worker: Worker, message: MessageToThread): void {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
  worker.postMessage(message);
}

function withoutScopes(secrets: ReturnType<SecretLookup>): KnownSecrets | undefined {
  return secrets?.map(
    (secret) =>
      secret && {
        entries: secret.entries.map(({ id, registry, login }) => ({ id, registry, login })),
        ...(secret.problem === undefined ? {} : { problem: secret.problem }),
      },
  );
}
