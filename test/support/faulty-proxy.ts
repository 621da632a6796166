import { once } from 'node:events';
import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { listenOnLoopback } from './http.ts';

/** The fault of one request; empty: it passes. */
export interface Fault {
  /** Milliseconds before it is passed on. */
  latency?: number;
  /** Answers with this status instead, and S3's kind of error. */
  status?: number;
  /** S3's name of it. */
  code?: string;
  /** Closes the connection without an answer. */
  reset?: boolean;
  /** Does not answer. */
  silent?: boolean;
  /** Closes the connection after so many bytes of the answer's body. */
  cutAfter?: number;
}

export interface FaultyProxy extends AsyncDisposable {
  url: string;
  /** Called before each request is passed on. */
  behave: (request: { method: string; path: string }) => Fault;
  /** Every request so far: METHOD PATH */
  requests: string[];
}

/** A proxy in front of an HTTP server with the faults of networks and overloaded servers. It does
 *  not change the Host header, which S3's signatures cover. */
export async function startFaultyProxy(target: string): Promise<FaultyProxy> {
  const { hostname, port } = new URL(target);
  const server = createServer((incoming, outgoing) => void pass(incoming, outgoing).catch(() => outgoing.destroy()));
  const listening = await listenOnLoopback(server);

  async function pass(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const { method = '', url = '', headers } = incoming;
    proxy.requests.push(`${method} ${url}`);
    const fault = proxy.behave({ method, path: url });
    if (fault.latency !== undefined) await delay(fault.latency);
    if (fault.silent === true) return;
    if (fault.reset === true) return void incoming.socket.destroy();
    if (fault.status !== undefined) {
      incoming.resume();
      const body = `<?xml version="1.0" encoding="UTF-8"?><Error><Code>${fault.code ?? 'InternalError'}</Code><Message>a fault</Message></Error>`;
      outgoing.writeHead(fault.status, { 'content-type': 'application/xml' }).end(method === 'HEAD' ? undefined : body);
      return;
    }
    const inner = request({ host: hostname, port, method, path: url, headers });
    incoming.pipe(inner);
    outgoing.once('close', () => inner.destroy());
    const [answer] = (await once(inner, 'response')) as [IncomingMessage];
    inner.on('error', () => outgoing.destroy());
    outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
    let sent = 0;
    answer.on('data', (chunk: Buffer) => {
      sent += chunk.length;
      if (fault.cutAfter !== undefined && sent > fault.cutAfter) outgoing.destroy();
    });
    answer.pipe(outgoing);
  }

  const proxy: FaultyProxy = {
    url: listening.url,
    behave: () => ({}),
    requests: [],
    [Symbol.asyncDispose]: () => listening[Symbol.asyncDispose](),
  };
  return proxy;
}
