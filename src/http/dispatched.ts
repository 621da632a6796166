import type { Dispatcher } from 'undici';
import { createArrivals } from '../io/arrivals.ts';
import type { WayRequest, WayResponse } from './transport.ts';

/** Sends a request and takes its body as it comes from the connection. `dispatcher.request` would put a stream in between, which holds two
 *  chunks of its own, and keep the chunks that had the headers in them: 16 MB with 64 downloads at once.
 *  @throws Error of the connection, or the signal's reason */
export function dispatched(dispatcher: Dispatcher, { signal, ...request }: WayRequest): Promise<WayResponse> {
  const answer = Promise.withResolvers<WayResponse>();
  let controller: Dispatcher.DispatchController | undefined;
  let unwanted = false;
  const arrivals = createArrivals({ pause: () => controller?.pause(), resume: () => controller?.resume() });

  function conclude(error?: Error): void {
    signal.removeEventListener('abort', abort);
    if (error !== undefined) answer.reject(error);
    arrivals.conclude(error);
  }
  function abort(): void {
    controller?.abort(signal.reason as Error);
    conclude(signal.reason as Error);
  }
  function cut(): void {
    controller?.abort(new Error('nobody reads the body'));
  }

  signal.throwIfAborted();
  signal.addEventListener('abort', abort, { once: true });
  dispatcher.dispatch(request, {
    onRequestStart(started) {
      controller = started;
      if (signal.aborted) abort();
    },
    onResponseStart(_, statusCode, headers) {
      if (statusCode < 200 || controller === undefined) return;
      controller.rawHeaders = null; // slices of a chunk, which would last as long as the body
      answer.resolve({
        statusCode,
        headers,
        body: {
          pull: arrivals.pull,
          close() {
            cut();
            return Promise.resolve();
          },
        },
        abandon(rest) {
          if (rest === 'long') return cut();
          unwanted = true;
          controller?.resume();
        },
      });
    },
    onResponseData(_, chunk) {
      if (!unwanted && chunk.length > 0) arrivals.arrive(chunk);
    },
    onResponseEnd: () => conclude(),
    onResponseError: (_, error) => conclude(error),
  });
  return answer.promise;
}
