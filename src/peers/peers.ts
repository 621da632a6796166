import { hash } from 'node:crypto';
import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { networkInterfaces } from 'node:os';
import type { Digest } from '../oci/digest.ts';
import type { Registry } from '../oci/registry.ts';
import type { Log } from '../telemetry/log.ts';
import type { RegistryMetrics } from '../telemetry/registry-metrics.ts';
import { createTransport } from '../http/undici-transport.ts';
import { createPeer, type Peer } from './peer.ts';

export interface PeersOptions {
  /** A name that resolves to every replica (a headless Service), and the port that they listen
   *  on. */
  service: { host: string; port: number };
  /** The address that this replica listens on. */
  own: { host: string; port: number };
  log: Log;
  metrics: Pick<RegistryMetrics, 'askedPeer' | 'receivedFromPeers' | 'livePeers'>;
}

/** The replicas of one registry (promise 10). */
export interface Peers {
  /** The replica that fetches this digest for all replicas; undefined: this one. */
  ownerOf(this: void, digest: Digest): Registry | undefined;
  /** The same replica's URL. */
  urlOfOwner(this: void, digest: Digest): string | undefined;
  /** The addresses of the other replicas, by the last lookup. */
  others(this: void): string[];
  close(): void;
}

/** For a registry with a single replica. */
export const noPeers: Peers = { ownerOf: () => undefined, urlOfOwner: () => undefined, others: () => [], close: () => undefined };

/** Milliseconds between two lookups of the replicas and checks of their liveness. */
const REFRESH = 2000;
const CONNECT_TIMEOUT = 800;

/** Finds the other replicas by the name of their Service, in the background: no pull ever waits for
 *  a lookup. Each digest has one owner among the live replicas, by rendezvous hashing: when a
 *  replica disappears, only its digests change owner. If replicas briefly disagree about the list,
 *  the only cost is a second download. */
export function createPeers({ service, own, log, metrics }: PeersOptions): Peers {
  const transport = createTransport({ proxy: 'direct', connectTimeout: CONNECT_TIMEOUT });
  const pingTransport = createTransport({ proxy: 'direct', connectTimeout: CONNECT_TIMEOUT });
  const peers = new Map<string, Peer>();
  let addresses: string[] = [];
  let failing = false;

  const isOwn = (address: string): boolean => service.port === own.port && ownAddresses(own.host).has(address);

  const urlOf = (address: string): string => `http://${isIP(address) === 6 ? `[${address}]` : address}:${service.port}`;

  function connect(address: string): Peer {
    return createPeer({
      url: urlOf(address),
      transport,
      pingTransport,
      metrics,
      changed(alive) {
        if (alive) log.info({ event: 'replica-back', address }, 'a replica answers again');
        else log.warn({ event: 'replica-down', address }, 'a replica does not answer; the others download what it owned');
        count();
      },
    });
  }

  function count(): void {
    metrics.livePeers(1 + [...peers.values()].filter(({ liveness }) => liveness.alive()).length);
  }

  async function look(): Promise<void> {
    try {
      const found = await lookup(service.host, { all: true });
      addresses = [...new Set(found.map(({ address }) => address))].sort();
      failing = false;
    } catch (error) {
      // Keep the replicas of the last successful lookup.
      if (!failing) log.warn({ event: 'replicas-not-resolved', error, service: service.host }, 'cannot look up the replicas');
      failing = true;
    }
    for (const address of peers.keys()) if (!addresses.includes(address)) peers.delete(address);
    for (const address of addresses) if (!isOwn(address) && !peers.has(address)) peers.set(address, connect(address));
    await Promise.all([...peers.values()].map(({ liveness }) => liveness.check()));
    count();
  }

  let looking: Promise<void> | undefined;
  function refresh(): void {
    if (looking !== undefined) for (const { liveness } of peers.values()) void liveness.check(); // a lookup may hang
    looking ??= look().finally(() => (looking = undefined));
  }
  const timer = setInterval(refresh, REFRESH);
  refresh();

  /** The address of the owner, unless that is this replica. */
  function addressOfOwner(digest: Digest): string | undefined {
    const living = addresses.filter((address) => peers.get(address)?.liveness.alive() ?? true);
    const owner = highest(digest, living);
    return owner !== undefined && peers.has(owner) ? owner : undefined;
  }

  return {
    ownerOf(digest) {
      const owner = addressOfOwner(digest);
      return owner === undefined ? undefined : peers.get(owner)?.registry;
    },
    urlOfOwner(digest) {
      const owner = addressOfOwner(digest);
      return owner === undefined ? undefined : urlOf(owner);
    },
    others: () => [...peers.keys()],
    close: () => clearInterval(timer),
  };
}

/** Rendezvous hashing: from the same addresses, every replica picks the same one. */
export function highest(digest: string, addresses: readonly string[]): string | undefined {
  let best: { address: string; weight: string } | undefined;
  for (const address of addresses) {
    const weight = hash('sha256', `${address} ${digest}`);
    if (best === undefined || weight > best.weight) best = { address, weight };
  }
  return best?.address;
}

/** The addresses of this process: the one that it listens on, or all of the machine's if it listens
 *  on all. */
function ownAddresses(listening: string): Set<string> {
  if (!['0.0.0.0', '::'].includes(listening)) return new Set([listening]);
  return new Set(Object.values(networkInterfaces()).flatMap((entries = []) => entries.map(({ address }) => address)));
}
