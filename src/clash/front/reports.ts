import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { fieldsOf, textOf } from '../../io/untrusted.ts';

/** The registry's report about a download through the proxy. `cut`: the connection ended in the
 *  middle of a body; `silent`: a body stopped; `refused`: the upstream answered 403, 429 or 5xx. */
export interface DownloadReport {
  outcome: 'cut' | 'silent' | 'refused';
  /** The node of the download; undefined: the one in use. */
  node?: string;
}

const PATH = '/kube-registry/downloads';
const MAX_BYTES = 4096;
const OUTCOMES = new Set(['cut', 'silent', 'refused']);

/** Answers the registry's own requests to the proxy's port: `POST /kube-registry/downloads` with
 *  `{"outcome": "cut"}`. The registry knows that port, which is on loopback; other proxies answer
 *  4xx there.
 *  @returns a function that takes over a connection */
export function createReportServer(onReport: (report: DownloadReport) => void): (socket: Socket) => void {
  const server = createServer({ requestTimeout: 10_000 }, (request, response) => {
    answer(request, response, onReport).catch(() => response.destroy());
  });
  return (socket) => void server.emit('connection', socket);
}

async function answer(request: IncomingMessage, response: ServerResponse, onReport: (report: DownloadReport) => void): Promise<void> {
  response.setHeader('connection', 'close');
  if (request.method !== 'POST' || request.url !== PATH) return void response.writeHead(404).end();
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_BYTES) return void response.writeHead(413).end();
    chunks.push(chunk);
  }
  const outcome = outcomeOf(Buffer.concat(chunks).toString('utf8'));
  if (outcome === undefined) return void response.writeHead(400).end();
  onReport({ outcome });
  response.writeHead(204).end();
}

function outcomeOf(text: string): DownloadReport['outcome'] | undefined {
  try {
    const outcome = textOf(fieldsOf(JSON.parse(text))['outcome']) ?? '';
    return OUTCOMES.has(outcome) ? (outcome as DownloadReport['outcome']) : undefined;
  } catch {
    return undefined; // not JSON
  }
}
