import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Context } from '../oci/registry.ts';
import type { ParsedRequest } from './parse-request.ts';

/** A request and its response. */
export interface Exchange {
  request: IncomingMessage;
  response: ServerResponse;
  /** Whether the request is a HEAD. */
  head: boolean;
  context: Context;
  /** Body bytes that the client has accepted. */
  bytes: number;
  /** Set once the path has been parsed; a metric label with few values. */
  upstream: string;
  kind: ParsedRequest['kind'] | 'none';
  stale: boolean;
}

export function openExchange(request: IncomingMessage, response: ServerResponse): Exchange {
  return {
    request,
    response,
    head: request.method === 'HEAD',
    context: createContext(response),
    bytes: 0,
    upstream: 'none',
    kind: 'none',
    stale: false,
  };
}

/** Its signal aborts when the client disconnects. The signal is created at once: a getter would
 *  give every context its own hidden class (V8), which lasts until the next full garbage collection
 *  with all that it references, and took half of the time of a small request. */
function createContext(response: ServerResponse): Context {
  const controller = new AbortController();
  const gone = () => {
    if (!response.writableFinished) controller.abort(new DOMException('the client is gone', 'AbortError'));
  };
  if (response.closed) gone();
  else response.once('close', gone);
  return { signal: controller.signal };
}
