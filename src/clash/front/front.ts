import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { raceAbort } from '../../async/race-abort.ts';
import { ClashError } from '../subscription/document.ts';

/** The listeners for clients. Their ports stay the same while mihomo processes behind them
 *  change. */
export type Entrance = 'proxy' | 'shared' | 'controller';

/** The ports of a mihomo process on 127.0.0.1, by entrance. */
export type Ports = Readonly<Record<Entrance, number>>;

/** One client connection and its counterpart to mihomo. */
export interface Link {
  entrance: Entrance;
  /** The mihomo process. */
  ports: Ports;
  /** The local port of the connection to mihomo, which lists it as `sourcePort`. */
  localPort: number;
  /** When the client last sent a byte, and mihomo last did, in ms since 1970, to the second. */
  sentAt: number;
  receivedAt: number;
  /** Bytes from mihomo so far, to the second. */
  received: number;
  /** Ends both connections. */
  cut(): void;
}

export interface FrontEvents {
  /** A client has connected to the proxy or the shared proxy. */
  opened(): void;
  /** mihomo closed a connection of the proxy without a response: its node refuses connections, or
   *  there is no node. */
  unanswered(): void;
  /** Called for a connection to the proxy port whose first bytes are a request to this program
   *  itself, `POST /…`. */
  request(socket: Socket): void;
}

export interface FrontOptions {
  listen: readonly { entrance: Entrance; host: string; port: number }[];
  events: FrontEvents;
  signal: AbortSignal;
}

export interface Front {
  /** Sends new connections to this mihomo; the open ones keep theirs. Undefined: new ones wait,
   *  for at most `HOLD_LIMIT_MS`. */
  use(ports: Ports | undefined): void;
  /** The open connections. */
  links(): Link[];
  /** Ends the idle connections to mihomo processes no longer in use. Call it several times a
   *  second. */
  shed(ports: Ports): void;
  closed: Promise<void>;
}

/** How long a new connection waits for a mihomo. */
const HOLD_LIMIT_MS = 15_000;
/** How long a client may take to send its first byte. */
const FIRST_BYTE_LIMIT_MS = 60_000;
const LINGER_MS = 2000;
const SAMPLE_INTERVAL_MS = 1000;
/** mihomo reports a tunnel as open before it tries a node; a connection that ends with fewer bytes
 *  had no response. */
const GREETING_BYTES = 256;
/** A connection on which client and mihomo have taken this many turns is kept alive between
 *  requests, and the registry, which keeps it, repeats a request if it is closed. */
const KEPT_TURNS = 6;
/** A former connection is idle after this long without a byte. */
const IDLE_LIMIT_MS = 60_000;
const REQUEST = Buffer.from('POST /');

/** Listens on the ports for clients, and relays each connection, byte by byte, to the mihomo
 *  process in use. A new config can therefore run in a new process without affecting any
 *  connection.
 *  @throws ClashError: a port cannot be listened on */
export async function openFront({ listen, events, signal }: FrontOptions): Promise<Front> {
  const links = new Set<ReturnType<typeof createLink>>();
  const clients = new Set<Socket>();
  let current = Promise.withResolvers<Ports>();
  let inUse: Ports | undefined;

  async function admit(client: Socket, entrance: Entrance): Promise<void> {
    if (entrance === 'proxy' && (await isRequest(client))) return events.request(client);
    const wait = AbortSignal.any([signal, AbortSignal.timeout(HOLD_LIMIT_MS)]);
    const ports = await raceAbort(current.promise, wait);
    if (client.destroyed) return;
    const server = connect({ host: '127.0.0.1', port: ports[entrance], allowHalfOpen: true, noDelay: true });
    await once(server, 'connect', { signal: wait });
    await relay({ client, server, entrance, ports });
  }

  async function relay({ client, server, ...place }: Pick<Link, 'entrance' | 'ports'> & { client: Socket; server: Socket }): Promise<void> {
    const link = createLink({ client, server, ...place });
    links.add(link);
    if (link.entrance !== 'controller') events.opened();
    // On the shared proxy, a wrong password looks the same, and must not cause a test each time.
    if (link.entrance === 'proxy') {
      server.once('close', () => {
        if (!client.destroyed && server.bytesRead <= GREETING_BYTES && inUse === link.ports) events.unanswered();
      });
    }
    await join(client, server);
    link.close();
    links.delete(link);
  }

  const accept = (entrance: Entrance) => (client: Socket) => {
    clients.add(client);
    client.once('close', () => clients.delete(client));
    client.on('error', () => undefined); // handled by the relay, which ends then
    admit(client, entrance).catch(() => client.destroy());
  };
  const servers = await Promise.all(listen.map(({ entrance, host, port }) => openServer({ host, port }, accept(entrance))));
  const close = () => {
    for (const server of servers) server.close();
    for (const client of clients) client.destroy();
  };
  signal.addEventListener('abort', close, { once: true });

  return {
    use(ports) {
      if (inUse !== undefined) current = Promise.withResolvers();
      if (ports !== undefined) current.resolve(ports);
      inUse = ports;
    },
    links: () => [...links],
    shed(ports) {
      for (const link of links) {
        if (link.ports !== ports) continue;
        const isQuiet = link.isQuiet();
        link.markShed();
        const kept = link.entrance === 'proxy' && link.turns >= KEPT_TURNS && link.isAnswered();
        if ((isQuiet && kept) || Date.now() - Math.max(link.sentAt, link.receivedAt) > IDLE_LIMIT_MS) link.cut();
      }
    },
    closed: Promise.all(servers.map((server) => once(server, 'close'))).then(() => undefined),
  };
}

/** Watches the bytes of a connection. */
function createLink({ client, server, ...place }: Pick<Link, 'entrance' | 'ports'> & { client: Socket; server: Socket }) {
  const sample = () => {
    if (server.bytesRead > link.received) link.receivedAt = Date.now();
    link.received = server.bytesRead;
  };
  const link = {
    ...place,
    localPort: server.localPort ?? 0,
    sentAt: Date.now(),
    receivedAt: 0,
    received: 0,
    turns: 0,
    cut: () => {
      client.resetAndDestroy();
      server.destroy();
    },
    /** No byte has arrived since the last `markShed`. */
    isQuiet: () => client.writableLength === 0 && server.bytesRead === marked,
    markShed: () => void (marked = server.bytesRead),
    /** The last bytes came from mihomo. */
    isAnswered: () => server.bytesRead > receivedBefore,
    close: () => clearInterval(timer),
  };
  let marked = -1;
  let receivedBefore = 0;
  client.on('data', () => {
    link.sentAt = Date.now();
    if (server.bytesRead > receivedBefore) link.turns++;
    receivedBefore = server.bytesRead;
  });
  const timer = setInterval(sample, SAMPLE_INTERVAL_MS).unref();
  return link;
}

/** Relays bytes both ways until both connections are closed. `pipeline` would not do: if one side
 *  fails it destroys both, and the client could not tell a reset from an end. */
async function join(client: Socket, server: Socket): Promise<void> {
  const closed = Promise.all([client, server].map((socket) => new Promise((resolve) => void socket.once('close', resolve))));
  client.once('error', () => server.destroy());
  client.once('close', () => server.destroy());
  server.once('error', () => {
    // A reset in the middle of a response is passed on, so that the client does not take it for a
    // proper end. Without a response, a reset is how mihomo refuses: the client then sees an end,
    // regardless of what it was sending.
    if (!server.readableEnded && server.bytesRead > GREETING_BYTES) client.resetAndDestroy();
  });
  server.once('close', () => endGently(client));
  client.pipe(server);
  server.pipe(client);
  await closed;
}

async function openServer(address: { host: string; port: number }, accept: (client: Socket) => void): Promise<Server> {
  const server = createServer({ allowHalfOpen: true, noDelay: true }, accept);
  server.listen(address);
  try {
    await once(server, 'listening');
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new ClashError(`clash cannot listen on ${address.host}:${address.port} (${code}): does another one run?`, { cause });
  }
  return server;
}

/** Ends a connection to a client that may still be sending: closed with unread bytes, it would be
 *  reset instead. */
function endGently(client: Socket): void {
  client.end();
  client.resume();
  setTimeout(() => client.destroy(), LINGER_MS).unref();
}

/** Whether the first bytes are a request to this program. They stay unread. */
async function isRequest(client: Socket): Promise<boolean> {
  await once(client, 'readable', { signal: AbortSignal.timeout(FIRST_BYTE_LIMIT_MS) });
  const first = client.read() as Buffer | null;
  if (first === null) return false;
  client.unshift(first);
  return first.subarray(0, REQUEST.length).equals(REQUEST);
}
