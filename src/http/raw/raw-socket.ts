import { Agent, type AgentOptions, type IncomingMessage } from 'node:http';
import { connect, type NetConnectOpts, type Socket } from 'node:net';
import { createRawBody, type RawBody } from './raw-body.ts';

/** Bytes of a body from which on it is worth a connection of its own. */
const LONG = 1024 * 1024;

/** Connections of plain HTTP whose long bodies are read without Node's parser, which copies each byte once more into memory that is garbage
 *  at once: a byte costs a third of what it costs otherwise. */
export interface RawLines {
  /** For the requests. */
  agent: Agent;
  /** The body of `length` bytes whose head has just come, straight from the socket, which ends with it; undefined: it is not worth that, or came
   *  over a connection of another agent. */
  takeOver(this: void, response: IncomingMessage, length: number): RawBody | undefined;
}

export function createRawLines(options: AgentOptions): RawLines {
  const lines = new WeakMap<Socket, Line>();
  const agent = new Agent(options);
  agent.createConnection = (options) => {
    const line = createLine(options as NetConnectOpts);
    lines.set(line.socket, line);
    return line.socket;
  };
  return {
    agent,
    takeOver: (response, length) => (length < LONG ? undefined : lines.get(response.socket)?.takeOver(response, length)),
  };
}

/** A connection whose bytes go to Node's parser until a long body is taken over. */
interface Line {
  socket: Socket;
  takeOver(response: IncomingMessage, length: number): RawBody;
}

/** Of all connections: what lies here is copied before the next of them reads. */
const shared = Buffer.allocUnsafeSlow(64 * 1024);

function createLine(options: NetConnectOpts): Line {
  let body: RawBody | undefined;
  const onread = {
    buffer: () => body?.buffer() ?? shared,
    callback(size: number, buffer: Uint8Array): boolean {
      const bytes = buffer === shared ? Buffer.from(shared.subarray(0, size)) : buffer.subarray(0, size);
      if (body !== undefined) return body.take(bytes);
      socket.emit('data', bytes);
      return true;
    },
  };
  const socket = connect({ ...options, onread } as NetConnectOpts);
  return {
    socket,
    takeOver(response, length) {
      response.on('error', () => undefined); // for Node's parser this body never ends
      const begun = response.read() as Buffer | null;
      body = createRawBody(socket, length);
      if (begun !== null) body.take(begun);
      return body;
    },
  };
}
