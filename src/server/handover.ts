import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { createServer, type Server, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { Log } from '../telemetry/log.ts';
import { adoptPipe, connectPipe, type IpcPipe, type ListeningSocket } from './ipc-pipe.ts';

/** How a process hands its listening sockets to its successor on the same machine.
 *
 *  The process offers them on an abstract unix socket, which is visible to everything in its
 *  network namespace. Both sides must therefore prove that they know `secret`: HMAC-SHA256 over a
 *  nonce of each side. */
export interface Handover {
  /** Names the abstract socket. */
  name: string;
  secret: Buffer;
}

/** `host:port` → the socket that listens there. */
export type Sockets = ReadonlyMap<string, ListeningSocket>;

/** The time limit of a whole conversation. */
const CONVERSATION_MS = 5_000;
/** The pause between two attempts to take over the name, which the predecessor holds until it
 *  stops. */
const NAME_RETRY_MS = 500;
/** How long the pipe stays open after the last message; normally the successor closes it
 *  earlier. */
const CLOSE_AFTER_MS = 1_000;
const MAX_CONVERSATIONS = 8;
const MAX_LINE_BYTES = 4096;

interface Request {
  nonce: string;
  proof: string;
  addresses: string[];
}

/** Asks the process that offers sockets under this name for those of `addresses`.
 *  @returns the sockets that the process has; undefined if there is no such process
 *  @throws Error: the process violates the protocol, or does not know the secret */
export async function requestSockets({ name, secret }: Handover, addresses: readonly string[]): Promise<Sockets | undefined> {
  const pipe = await connectPipe(pathOf(name)).catch(() => undefined); // nothing listens
  if (pipe === undefined) return undefined;
  const timer = setTimeout(() => pipe.close(), CONVERSATION_MS);
  try {
    const messages = readMessages(pipe);
    const { nonce: theirs } = (await nextMessage(messages)).message;
    const own = randomBytes(16).toString('hex');
    const request: Request = { nonce: own, proof: prove(secret, ['successor', name, theirs, own]), addresses: [...addresses] };
    pipe.write(`${JSON.stringify(request)}\n`);
    const { proof } = (await nextMessage(messages)).message;
    if (!isSame(proof, prove(secret, ['predecessor', name, theirs, own])))
      throw new Error('the process that offers its sockets does not know the secret');
    const sockets = new Map<string, ListeningSocket>();
    for (;;) {
      const { message, socket } = await nextMessage(messages);
      if (message['address'] === undefined) return sockets;
      if (socket !== undefined) sockets.set(message['address'], socket);
    }
  } finally {
    clearTimeout(timer);
    pipe.close();
  }
}

export interface Offer {
  /** Stops offering the sockets. */
  close(): void;
}

/** Offers `sockets` to a successor, as soon as a predecessor has given up the name. */
export function offerSockets({ name, secret }: Handover, sockets: () => Sockets, log: Log): Offer {
  const stop = new AbortController();
  const server = createServer((socket) => {
    socket.setTimeout(CONVERSATION_MS, () => socket.destroy());
    socket.on('error', (error) => log.debug({ event: 'handover-connection-failed', error }, 'connection to the handover socket failed'));
    void answer(socket, { name, secret }, sockets()).then(
      (addresses) => log.info({ event: 'sockets-handed-over', addresses }, 'handed the listening sockets over to the new agent'),
      (error: unknown) => {
        log.warn({ event: 'handover-refused', error }, 'refused to hand over the listening sockets');
        socket.destroy();
      },
    );
  });
  server.maxConnections = MAX_CONVERSATIONS;
  server.unref();
  void listenOnName(server, pathOf(name), stop.signal);
  return {
    close() {
      stop.abort();
      server.close();
    },
  };
}

async function listenOnName(server: Server, path: string, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    server.once('error', () => resolve(false));
    server.listen(path, () => resolve(true));
    if (await promise) return;
    await delay(NAME_RETRY_MS, undefined, { signal, ref: false }).catch(() => undefined); // stopped
  }
}

/** Runs one conversation on the side that has the sockets. @throws Error: the other side has not
 *  proved that it knows the secret */
async function answer(socket: Socket, { name, secret }: Handover, sockets: Sockets): Promise<string[]> {
  const own = randomBytes(16).toString('hex');
  socket.write(`${JSON.stringify({ nonce: own })}\n`);
  const request = parseRequest(await firstLine(socket));
  if (!isSame(request.proof, prove(secret, ['successor', name, own, request.nonce])))
    throw new Error('the process that requested the listening sockets does not know the secret');
  const given: string[] = [];
  const pipe = adoptPipe(socket);
  pipe.write(`${JSON.stringify({ proof: prove(secret, ['predecessor', name, own, request.nonce]) })}\n`);
  for (const address of request.addresses) {
    const own = sockets.get(address);
    if (own === undefined) continue;
    pipe.write(`${JSON.stringify({ address })}\n`, own);
    given.push(address);
  }
  pipe.write('{}\n');
  setTimeout(() => pipe.close(), CLOSE_AFTER_MS).unref();
  return given;
}

/** Reads one line and nothing after it. */
async function firstLine(socket: Socket): Promise<string> {
  let text = '';
  for await (const chunk of socket.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    text += chunk.toString();
    if (text.includes('\n')) return text;
    if (text.length > MAX_LINE_BYTES) break;
  }
  throw new Error('no request came');
}

function parseRequest(line: string): Request {
  const { nonce, proof, addresses } = JSON.parse(line) as Record<string, unknown>;
  if (typeof nonce !== 'string' || typeof proof !== 'string' || !Array.isArray(addresses)) throw new Error('it is not a request');
  return { nonce, proof, addresses: addresses.map(String).slice(0, 64) };
}

interface Message {
  message: Record<string, string>;
  socket: ListeningSocket | undefined;
}

/** Reads lines of JSON. A socket belongs to the last line of the text that it arrived with: the
 *  kernel never joins later text to it. */
async function* readMessages(pipe: IpcPipe): AsyncGenerator<Message> {
  for (let rest = '', part = await pipe.read(); part !== undefined; part = await pipe.read()) {
    const lines = (rest + part.text).split('\n');
    rest = lines.pop() ?? '';
    for (const [index, line] of lines.entries()) {
      yield { message: JSON.parse(line) as Record<string, string>, socket: index === lines.length - 1 ? part.socket : undefined };
    }
  }
}

async function nextMessage(messages: AsyncGenerator<Message>): Promise<Message> {
  const { value, done } = await messages.next();
  if (done === true) throw new Error('the process that offers its sockets ended the conversation');
  return value;
}

function pathOf(name: string): string {
  return `\0${name}`;
}

function prove(secret: Buffer, parts: readonly (string | undefined)[]): string {
  return createHmac('sha256', secret).update(JSON.stringify(parts)).digest('hex');
}

function isSame(given: string | undefined, wanted: string): boolean {
  const one = Buffer.from(given ?? '');
  const other = Buffer.from(wanted);
  return one.length === other.length && timingSafeEqual(one, other);
}
