import { createServer, request } from 'node:http';
import { pipeline } from 'node:stream/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { listenOnLoopback } from './http.ts';

export interface TapOptions {
  /** Bytes a second that each answer gets; default: as many as there are. */
  rate?: number;
  /** Milliseconds before an answer. */
  latency?: number;
}
export interface TappedRequest {
  method: string;
  /** Without a query. */
  path: string;
  /** The time of arrival, by performance.now(). */
  at: number;
  /** Bytes of the response body that were passed on. */
  bytes: number;
}
export interface Tap extends AsyncDisposable {
  /** Instead of the server's own. */
  url: string;
  /** In the order of arrival; empty it to restart counting. */
  requests: TappedRequest[];
}

const PIECE = 32 * 1024;

/** A proxy in front of an HTTP server that records its requests and slows it down. It does not
 *  change headers, so signatures stay valid. */
export async function startTap(target: string, { rate = Infinity, latency = 0 }: TapOptions = {}): Promise<Tap> {
  const { hostname, port } = new URL(target);
  const requests: TappedRequest[] = [];

  async function* slowed(body: AsyncIterable<Buffer>, entry: TappedRequest): AsyncGenerator<Buffer> {
    const started = performance.now();
    for await (const chunk of body) {
      for (let at = 0; at < chunk.length; at += PIECE) {
        const piece = chunk.subarray(at, at + PIECE);
        entry.bytes += piece.length;
        yield piece;
        const early = (1000 * entry.bytes) / rate - (performance.now() - started);
        if (early > 5) await delay(early);
      }
    }
  }

  const server = createServer((incoming, response) => {
    const { method = '', url = '', headers } = incoming;
    const entry = { method, path: url.split('?')[0] ?? '', at: performance.now(), bytes: 0 };
    requests.push(entry);
    const outgoing = request({ hostname, port, method, path: url, headers }, (answer) => {
      void delay(latency).then(() => {
        response.writeHead(answer.statusCode ?? 502, answer.headers);
        response.flushHeaders();
        return pipeline(slowed(answer, entry), response).catch(() => response.destroy());
      });
    });
    pipeline(incoming, outgoing).catch(() => response.destroy());
  });
  const listening = await listenOnLoopback(server);
  return {
    url: listening.url,
    requests,
    [Symbol.asyncDispose]: () => listening[Symbol.asyncDispose](),
  };
}
