import { connect } from 'node:net';
import type { AgentConfig } from '../../config/schema.ts';
import type { Transport } from '../../http/transport.ts';
import { createRawTransport } from '../../http/raw/raw-transport.ts';
import { createThrottle } from '../../io/throttle.ts';
import { isNodeAddress } from '../../nearest/agreement.ts';
import type { NearestMetrics } from '../../nearest/blob-sources.ts';
import { nearest } from '../../nearest/nearest.ts';
import { createPlaces } from '../../nearest/places.ts';
import { createQuestions } from '../../nearest/questions.ts';
import type { Sharing } from '../../nearest/sharing.ts';
import type { Registry } from '../../oci/registry.ts';
import { formatAddress, type ListenAddress, type RequestHandler } from '../../server/listen.ts';
import { lazyFileSender } from '../../server/send-file.ts';
import { serveSharedBlobs } from '../../server/serve-shared-blobs.ts';
import type { Log } from '../../telemetry/log.ts';
import type { Metrics } from '../../telemetry/metrics.ts';

export interface NearestContext {
  /** URL of the registry. */
  url: string;
  /** Sent to the registry with every request. */
  headers: Record<string, string>;
  /** The upstreams themselves; undefined: they are not read directly. */
  direct: Registry | undefined;
  transport: Transport;
  log: Log;
  metrics: Metrics;
}

/** Reads blobs from the nearest source, and shares them with other nodes. */
export interface Nearby {
  /** The registry, with blobs from the nearest source. */
  registry: Registry;
  /** Undefined: this agent does not share. */
  sharing: SharingPort | undefined;
}

export interface SharingPort {
  handler: RequestHandler;
  /** Call it once `handler` listens at this address. */
  listensAt(this: void, address: ListenAddress): void;
  close(this: void, signal: AbortSignal): Promise<void>;
}

const CONNECT_TIMEOUT_MS = 1000;
/** Larger depths are counted as this one. */
const DEPTHS = [1, 2, 3, 4, 5, 6, 8, 10, 15];

export async function createNearby(registry: Registry, own: AgentConfig, context: NearestContext): Promise<Nearby> {
  const { url, direct, transport, log } = context;
  const { metrics, sent } = createMetrics(context.metrics);
  const sharing = await openConfigured(own, log);
  const questions = createQuestions({ url, headers: context.headers, transport, log });
  const places = createPlaces({
    transport: createRawTransport({ connectTimeout: CONNECT_TIMEOUT_MS }),
    pingTransport: createRawTransport({ connectTimeout: CONNECT_TIMEOUT_MS, plain: true }),
  });
  const images = nearest(registry, { questions, places, sharing, direct, log, metrics });
  if (sharing === undefined) return { registry: images, sharing: undefined };
  context.metrics.watch('agent_share_bytes', 'Bytes on disk for other nodes.', sharing.used);
  sharing.onGone((digest) => {
    const node = sharing.node();
    if (node !== undefined) questions.report({ node, digest, outcome: 'gone', from: undefined, milliseconds: 1 });
  });
  const handler = serveSharedBlobs({ ...sharing, log, sent, throttle: createThrottle(own.share.rate), fileSender: lazyFileSender() });
  const listensAt = (address: ListenAddress): void =>
    void findAddress(own.share, address, url).then(
      (found) => announce(sharing, found, log),
      (error: unknown) =>
        log.warn({ event: 'share-address-unknown', error }, 'cannot find the address of this node; set agent.share.address'),
    );
  return { registry: images, sharing: { handler, listensAt, close: sharing.close } };
}

async function openConfigured({ share }: AgentConfig, log: Log): Promise<Sharing | undefined> {
  if (!share.enabled) return undefined;
  const { openSharing } = await import('../../nearest/sharing.ts');
  try {
    return await openSharing({ ...share, log });
  } catch (error) {
    log.error(
      { event: 'share-unusable', error, directory: share.directory },
      'this node shares no blobs: agent.share.directory cannot be used',
    );
    return undefined;
  }
}

function announce(sharing: Sharing, address: string, log: Log): void {
  if (!isNodeAddress(address)) {
    log.warn({ event: 'share-address-unknown', address }, 'this node shares no blobs: agent.share.address must be an IP address');
    return;
  }
  sharing.listensAt(address);
  log.info({ event: 'sharing-blobs', address }, 'this node shares blobs with other nodes');
}

/** The address by which other nodes reach this one. */
async function findAddress({ address }: AgentConfig['share'], { host, port }: ListenAddress, registry: string): Promise<string> {
  if (address !== undefined && address !== '') return formatAddress({ host: address, port });
  if (host !== '0.0.0.0' && host !== '::') return formatAddress({ host, port });
  return formatAddress({ host: await localAddress(new URL(registry)), port });
}

/** The source address of this machine's connections to a server. */
function localAddress({ hostname, port, protocol }: URL): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const socket = connect({ host: hostname.replace(/^\[|\]$/g, ''), port: Number(port) || (protocol === 'https:' ? 443 : 80) });
  socket.once('error', reject);
  socket.once('connect', () => {
    resolve(socket.localAddress ?? '');
    socket.destroy();
  });
  return promise;
}

function createMetrics(metrics: Metrics): { metrics: NearestMetrics; sent: (bytes: number) => void } {
  const received = metrics.counter(
    'agent_received_bytes_total',
    'Bytes of whole blobs by the place they came from: registry, s3, node, upstream.',
    ['from'],
  );
  const left = metrics.counter('agent_places_left_total', 'Places that failed, so that a blob continued from another: s3, node.', [
    'place',
  ]);
  const shared = metrics.counter('agent_shared_bytes_total', 'Bytes sent to other nodes.', []);
  const depth = metrics.histogram('agent_depth', 'Hops between this agent and the registry or S3, by blob; 1: read from there directly.', {
    labels: [],
    buckets: DEPTHS,
  });
  return {
    metrics: {
      received: (from, bytes) => received({ from }, bytes),
      depth: (steps) => depth({}, steps),
      left: (place) => left({ place }),
    },
    sent: (bytes) => shared({}, bytes),
  };
}
