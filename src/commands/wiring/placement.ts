import { createTransport } from '../../http/undici-transport.ts';
import { createNodes } from '../../nearest/nodes.ts';
import { createPlacement, type Placement } from '../../nearest/placement.ts';
import { createTracker } from '../../nearest/tracker.ts';
import type { Registry } from '../../oci/registry.ts';
import { PEER_HEADERS } from '../../peers/peer.ts';
import type { Peers } from '../../peers/peers.ts';
import type { Log } from '../../telemetry/log.ts';
import type { RegistryMetrics } from '../../telemetry/registry-metrics.ts';
import type { Storage } from './storage.ts';

const CONNECT_TIMEOUT_MS = 800;

/** Decides where agents read blobs: from other nodes, from S3, or from this registry. */
export function placementOf({
  proofs,
  peers,
  storage,
  log,
  metrics,
}: {
  proofs: Registry;
  peers: Pick<Peers, 'urlOfOwner'>;
  storage: Pick<Storage, 'redirect'>;
  log: Log;
  metrics: Pick<RegistryMetrics, 'placed' | 'watchSharingNodes'>;
}): Placement {
  const transport = createTransport({ proxy: 'direct', connectTimeout: CONNECT_TIMEOUT_MS });
  const nodes = createNodes({ transport, log });
  metrics.watchSharingNodes(nodes.count);
  return createPlacement({
    proofs,
    tracker: createTracker({ nodes, log }),
    s3: storage.redirect,
    ownerOf(digest) {
      const url = peers.urlOfOwner(digest);
      return url === undefined ? undefined : { url, headers: PEER_HEADERS };
    },
    transport,
    placed: metrics.placed,
  });
}
