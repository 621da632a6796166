import { OciError } from '../oci/error.ts';
import type { Context, Registry } from '../oci/registry.ts';
import { mapBody } from '../io/body.ts';
import type { RegistryMetrics } from '../telemetry/registry-metrics.ts';
import { createPulse, type Pulse } from './liveness.ts';
import { remote } from '../upstream/remote.ts';
import type { Transport } from '../http/transport.ts';

/** The header by which one replica asks another one. Its value is 1. */
const PEER_HEADER = 'x-kube-registry-hop';

/** Whether a request comes from another replica: it is to be answered here, without asking a further one (promise 10). */
export function isFromPeer(headers: Readonly<Record<string, string | string[] | undefined>>): boolean {
  return headers[PEER_HEADER] === '1';
}

export interface PeerOptions {
  /** http://ADDRESS:PORT */
  url: string;
  transport: Transport;
  /** For the questions whether it lives, which must not queue behind blobs. */
  pingTransport: Transport;
  changed(this: void, alive: boolean): void;
  metrics: Pick<RegistryMetrics, 'askedPeer' | 'receivedFromPeers'>;
}

/** Another replica. */
export interface Peer {
  /** What it has and what it fetches; it asks no further replica. Repositories start with their upstream's name. Every method throws UNAVAILABLE
   *  as soon as the replica is found to be gone, in the middle of a body too. */
  registry: Registry;
  pulse: Pulse;
}

/** How long a living replica has for its headers, in ms. It gives them as soon as upstream does; one whose way out is worse than this one's
 *  must leave time to ask upstream from here before a client gives up (containerd: 30 s). */
const HEADERS_LIMIT_MS = 8000;
/** How long a living replica may bring no byte of a body, in ms: whether upstream is silent is its business. */
const IDLE_LIMIT_MS = 60_000;

export function createPeer({ url, transport, pingTransport, changed, metrics }: PeerOptions): Peer {
  const replica = remote({
    name: url,
    url,
    transport,
    headers: { [PEER_HEADER]: '1' },
    limits: { attempts: 1, headersMs: HEADERS_LIMIT_MS, idleMs: IDLE_LIMIT_MS },
    metrics: { observeUpstream: () => undefined, received: (_, bytes) => metrics.receivedFromPeers(bytes) },
  });
  const pulse = createPulse({
    changed,
    async ping(signal) {
      const { abandon } = await pingTransport.request({ origin: url, path: '/v2/', method: 'GET', headers: {}, signal });
      abandon('short');
    },
  });

  /** A signal that ends with the caller's, and when the replica is found to be gone. */
  function attend({ signal }: Context): { signal: AbortSignal; end: () => void } {
    signal.throwIfAborted();
    const own = new AbortController();
    const abort = () => own.abort(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    const unwatch = pulse.watch(() => own.abort(new OciError('UNAVAILABLE', `the replica ${url} is gone`, { origin: 'upstream' })));
    return {
      signal: own.signal,
      end() {
        signal.removeEventListener('abort', abort);
        unwatch();
      },
    };
  }

  /** The answer, while the replica lives. `end` is the caller's to call when there was one. */
  async function ask<T>(
    context: Context,
    work: (signal: AbortSignal) => Promise<T>,
  ): Promise<{ answer: T; signal: AbortSignal; end: () => void }> {
    const { signal, end } = attend(context);
    try {
      const answer = await work(signal);
      pulse.heard();
      metrics.askedPeer('served');
      return { answer, signal, end };
    } catch (error) {
      end();
      if (!context.signal.aborted) {
        metrics.askedPeer('failed');
        void pulse.check(); // was it an answer, or is it gone? The next who asks should know.
      }
      throw error;
    }
  }

  async function once<T>(context: Context, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const { answer, end } = await ask(context, work);
    end();
    return answer;
  }

  return {
    pulse,
    registry: {
      resolve: (repository, reference, context) =>
        once(context, (signal) => replica.resolve(repository, reference, { ...context, signal })),
      manifest: (repository, reference, context) =>
        once(context, (signal) => replica.manifest(repository, reference, { ...context, signal })),
      stat: (repository, digest, context) => once(context, (signal) => replica.stat(repository, digest, { ...context, signal })),
      referrers: (repository, digest, context) => once(context, (signal) => replica.referrers(repository, digest, { ...context, signal })),
      tags: (repository, context) => replica.tags(repository, context),

      async blob(repository, digest, context) {
        const { answer, end } = await ask(context, (signal) => replica.blob(repository, digest, { ...context, signal }));
        return { ...answer, body: mapBody(answer.body, { onChunk: () => pulse.heard(), onEnd: () => pulse.heard(), onClose: end }) };
      },
    },
  };
}
