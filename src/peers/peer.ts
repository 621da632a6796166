import { OciError } from '../oci/error.ts';
import type { Context, Registry } from '../oci/registry.ts';
import { mapBody } from '../io/body.ts';
import type { RegistryMetrics } from '../telemetry/registry-metrics.ts';
import { createLiveness, type Liveness } from '../async/liveness.ts';
import { remote } from '../upstream/remote.ts';
import type { Transport } from '../http/transport.ts';

/** The header that marks a request from another replica. Its value is 1. */
const PEER_HEADER = 'x-kube-registry-hop';
export const PEER_HEADERS: Record<string, string> = { [PEER_HEADER]: '1' };

/** Whether a request comes from another replica: it must be answered without asking a third one
 *  (promise 10). */
export function isFromPeer(headers: Readonly<Record<string, string | string[] | undefined>>): boolean {
  return headers[PEER_HEADER] === '1';
}

export interface PeerOptions {
  /** http://ADDRESS:PORT */
  url: string;
  transport: Transport;
  /** For liveness probes, which must not queue behind blobs. */
  pingTransport: Transport;
  changed(this: void, alive: boolean): void;
  metrics: Pick<RegistryMetrics, 'askedPeer' | 'receivedFromPeers'>;
}

/** Another replica. */
export interface Peer {
  /** The content that the replica has or fetches from upstream; it asks no third replica.
   *  Repositories start with their upstream's name. Every method throws UNAVAILABLE as soon as the
   *  replica is found dead, even in the middle of a body. */
  registry: Registry;
  liveness: Liveness;
}

/** How long a live replica may take to send headers, in ms. It sends them as soon as upstream does;
 *  if its own connection to upstream is slow, time must be left to ask upstream from here before a
 *  client gives up (containerd: 30 s). */
const HEADERS_LIMIT_MS = 8000;
/** How long a live replica may send no byte of a body, in ms: the replica itself watches for a
 *  silent upstream. */
const IDLE_LIMIT_MS = 60_000;

export function createPeer({ url, transport, pingTransport, changed, metrics }: PeerOptions): Peer {
  const replica = remote({
    name: url,
    url,
    transport,
    headers: PEER_HEADERS,
    limits: { attempts: 1, headersMs: HEADERS_LIMIT_MS, idleMs: IDLE_LIMIT_MS },
    metrics: { observeUpstream: () => undefined, received: (_, bytes) => metrics.receivedFromPeers(bytes) },
  });
  const liveness = createLiveness({
    changed,
    async ping(signal) {
      const { abandon } = await pingTransport.request({ origin: url, path: '/v2/', method: 'GET', headers: {}, signal });
      abandon('short');
    },
  });

  /** Runs `work` while the replica is alive. After success, the caller must call `end`. */
  async function ask<T>(
    context: Context,
    work: (signal: AbortSignal) => Promise<T>,
  ): Promise<{ answer: T; signal: AbortSignal; end: () => void }> {
    const { signal, end } = linkedSignal(context, liveness, url);
    try {
      const answer = await work(signal);
      liveness.heard();
      metrics.askedPeer('served');
      return { answer, signal, end };
    } catch (error) {
      end();
      if (!context.signal.aborted) {
        metrics.askedPeer('failed');
        void liveness.check(); // is the replica dead? The next request should know
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
    liveness,
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
        return { ...answer, body: mapBody(answer.body, { onBytes: () => liveness.heard(), onEnd: () => liveness.heard(), onClose: end }) };
      },
    },
  };
}

/** A signal that is aborted with the caller's signal, or when the replica is found dead. */
function linkedSignal({ signal }: Context, liveness: Liveness, url: string): { signal: AbortSignal; end: () => void } {
  signal.throwIfAborted();
  const own = new AbortController();
  const abort = () => own.abort(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  const unwatch = liveness.watch(() => own.abort(new OciError('UNAVAILABLE', `the replica ${url} is gone`, { origin: 'upstream' })));
  return {
    signal: own.signal,
    end() {
      signal.removeEventListener('abort', abort);
      unwatch();
    },
  };
}
