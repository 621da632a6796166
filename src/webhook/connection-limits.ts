/** Limits the requests of one address to the webhook, whose port every pod of the cluster can
 *  reach. */
export interface ConnectionLimits {
  /** Counts a new connection. @returns false if it must be closed at once */
  accept(address: string): boolean;
  closed(address: string): void;
  /** Counts a request that no API server sends. */
  violation(address: string): void;
}

/** API servers open up to some hundred connections at once when many pods are made, and keep 25 of
 *  them. */
const MAX_PER_ADDRESS = 400;
const MAX_CONNECTIONS = 1_000;
/** New connections: a burst, and a rate. A TLS handshake costs about a millisecond. */
const BURST = 1_000;
const PER_SECOND = 100;
/** The cost of a violation, in new connections. */
const PENALTY = 50;
/** Addresses that are remembered without a connection. */
const MAX_REMEMBERED = 1_000;

interface Client {
  open: number;
  /** New connections that are left. */
  left: number;
  /** When `left` was computed, in milliseconds of `now`. */
  since: number;
}

export function createConnectionLimits(now: () => number = () => performance.now()): ConnectionLimits {
  const clients = new Map<string, Client>();
  let open = 0;

  function clientOf(address: string): Client {
    const time = now();
    const client = clients.get(address) ?? { open: 0, left: BURST, since: time };
    client.left = Math.min(BURST, client.left + ((time - client.since) / 1000) * PER_SECOND);
    client.since = time;
    clients.delete(address); // to the end: the order is that of the last use
    clients.set(address, client);
    return client;
  }

  function forget(): void {
    for (const [address, client] of clients) {
      if (clients.size <= MAX_REMEMBERED) return;
      if (client.open === 0) clients.delete(address);
    }
  }

  return {
    accept(address) {
      const client = clientOf(address);
      forget();
      if (open >= MAX_CONNECTIONS || client.open >= MAX_PER_ADDRESS || client.left < 1) return false;
      client.left--;
      client.open++;
      open++;
      return true;
    },
    closed(address) {
      clientOf(address).open--;
      open--;
    },
    violation(address) {
      const client = clientOf(address);
      client.left = Math.max(0, client.left - PENALTY);
    },
  };
}
