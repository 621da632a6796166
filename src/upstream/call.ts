import type { TransportResponse } from '../http/transport.ts';
import { createBody } from '../io/body.ts';
import { sliceOf, withSlices } from '../io/slice.ts';
import { OciError } from '../oci/error.ts';
import type { Body } from '../oci/registry.ts';

/** `signal` ends a request, body included; `deadline` only until the headers. */
export interface Limits {
  signal: AbortSignal;
  deadline: AbortSignal;
  /** See `Context.reserve`. */
  reserve?: (bytes: number, signal: AbortSignal) => Promise<void>;
}

/** If no more than this is left of a response, it is read to its end, so that the connection can be
 *  reused; in bytes. */
const MAX_DRAIN = 64 * 1024;

/** The signal of one request, body included. */
export interface Call {
  signal: AbortSignal;
  abort(reason: OciError): void;
  /** Call it when the headers have arrived: the deadline no longer applies. */
  headersCame(): void;
  end(): void;
}

/** @throws the signal's reason; OciError UNAVAILABLE: the deadline has passed */
export function startCall({ signal, deadline }: Limits, host: string): Call {
  const own = new AbortController();
  const left = () => own.abort(signal.reason);
  const late = () => own.abort(new OciError('UNAVAILABLE', `${host} does not answer in time`, { origin: 'upstream' }));
  signal.throwIfAborted();
  if (deadline.aborted) late();
  own.signal.throwIfAborted();
  signal.addEventListener('abort', left, { once: true });
  deadline.addEventListener('abort', late, { once: true });
  return {
    signal: own.signal,
    abort: (reason) => own.abort(reason),
    headersCame: () => deadline.removeEventListener('abort', late),
    end: () => signal.removeEventListener('abort', left),
  };
}

/** Fails the body when no byte arrives for too long. Only the time in which the reader waits
 *  counts: a slow reader does not make the upstream look silent. */
export function withIdleTimeout(
  response: TransportResponse,
  call: Call,
  { idleTimeoutMs, host }: { idleTimeoutMs: number; host: string },
): Body {
  const silent = () => call.abort(new OciError('UNAVAILABLE', `${host} fell silent in the middle of a body`, { origin: 'upstream' }));
  const body = createBody(
    {
      async pull() {
        const timer = setTimeout(silent, idleTimeoutMs);
        try {
          return await response.body.pull();
        } catch (cause) {
          throw new OciError('UNAVAILABLE', `${host} cut the connection`, { cause, origin: 'upstream' });
        } finally {
          clearTimeout(timer);
        }
      },
      async close(aborted) {
        call.end();
        await response.body.close(aborted);
      },
    },
    call.signal,
  );
  return withSlices(body, sliceOf(response.body));
}

/** Frees the connection for the next request if little is left of the body, and closes it
 *  otherwise. */
export function discard({ headers, abandon }: TransportResponse): void {
  abandon(Number(headers['content-length'] ?? Infinity) <= MAX_DRAIN ? 'short' : 'long');
}
