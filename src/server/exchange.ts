import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Context } from '../oci/registry.ts';
import type { ParsedRequest } from './parse-request.ts';

/** One request and its answer. */
export interface Exchange {
  request: IncomingMessage;
  response: ServerResponse;
  /** Only the head is wanted. */
  head: boolean;
  context: Context;
  /** Of the body, taken by the client. */
  bytes: number;
  /** Known once the path has been read; a label of bounded variety. */
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

/** Its signal aborts when the client is gone. It is made at once: a getter would make every context a hidden class of its own (V8), which
 *  lasts until the next full collection with all that it refers to, and took half of the time of a small request. */
function createContext(response: ServerResponse): Context {
  const controller = new AbortController();
  const gone = () => {
    if (!response.writableFinished) controller.abort(new DOMException('the client is gone', 'AbortError'));
  };
  if (response.closed) gone();
  else response.once('close', gone);
  return { signal: controller.signal };
}
