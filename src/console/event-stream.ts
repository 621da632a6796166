import type { ServerResponse } from 'node:http';
import type { RequestHandler } from '../server/listen.ts';
import type { ConsoleEvents } from './api/operations.ts';

export interface EventStreamOptions {
  /** Takes a snapshot of each kind. Called at most once per `intervalMs`, whatever the number of
   *  readers. */
  snapshots: { [Kind in keyof ConsoleEvents]: () => Promise<ConsoleEvents[Kind]> };
  intervalMs?: number;
}

export interface EventStream {
  handler: RequestHandler;
  /** The current number of readers. */
  readers(this: void): number;
  close(this: void): void;
}

const INTERVAL_MS = 1000;
/** Keep-alive comments, so that gateways do not close the stream as idle. */
const HEARTBEAT_MS = 15_000;
const MAX_READERS = 100;
/** How many snapshots in a row a reader may leave unread. */
const MAX_MISSED = 30;

interface Reader {
  response: ServerResponse;
  /** The last snapshot sent of each kind. */
  sent: Map<string, string>;
  missed: number;
  lastWrite: number;
}

/** Server-sent events: whole snapshots, taken once per interval for all readers, and sent only if
 *  they have changed. A slow reader misses snapshots; a reader that does not read at all is
 *  disconnected. Without readers, no snapshots are taken. */
export function createEventStream({ snapshots, intervalMs = INTERVAL_MS }: EventStreamOptions): EventStream {
  const readers = new Set<Reader>();
  let timer: NodeJS.Timeout | undefined;
  let taking = false;

  async function take(): Promise<void> {
    if (taking) return; // a replica is slow to answer
    taking = true;
    for (const [kind, snapshot] of Object.entries(snapshots)) {
      const data = await snapshot().then(JSON.stringify, () => undefined); // the next one may succeed
      if (data !== undefined) for (const reader of readers) send(reader, kind, data);
    }
    taking = false;
    for (const reader of readers) if (performance.now() - reader.lastWrite > HEARTBEAT_MS) write(reader, ': \n\n');
  }

  function leave(reader: Reader): void {
    readers.delete(reader);
    if (readers.size > 0) return;
    clearInterval(timer);
    timer = undefined;
  }

  return {
    readers: () => readers.size,
    handler(_request, response) {
      if (readers.size >= MAX_READERS) {
        refuse(response);
        return;
      }
      const reader: Reader = { response, sent: new Map(), missed: 0, lastWrite: performance.now() };
      beginStream(response);
      readers.add(reader);
      response.once('close', () => leave(reader));
      timer ??= setInterval(() => void take(), intervalMs);
      void take();
    },
    close() {
      clearInterval(timer);
      for (const { response } of readers) response.destroy();
    },
  };
}

function beginStream(response: ServerResponse): void {
  response.writeHead(200, {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-store',
    'x-accel-buffering': 'no', // nginx would hold events back
    'x-content-type-options': 'nosniff',
  });
  response.flushHeaders();
}

function refuse(response: ServerResponse): void {
  response.writeHead(503, { 'content-type': 'application/json', 'retry-after': '30' });
  response.end(JSON.stringify({ error: { code: 'TOO_MANY_REQUESTS', message: 'too many pages are open' } }));
}

function send(reader: Reader, kind: string, data: string): void {
  if (reader.sent.get(kind) === data) return;
  if (!reader.response.writableNeedDrain) {
    reader.missed = 0;
    reader.sent.set(kind, data);
    write(reader, `event: ${kind}\ndata: ${data}\n\n`);
  } else if (++reader.missed > MAX_MISSED) reader.response.destroy();
}

function write(reader: Reader, text: string): void {
  reader.lastWrite = performance.now();
  reader.response.write(text);
}
