import type { Readable } from 'node:stream';
import { OciError } from '../oci/error.ts';
import type { BodySource } from '../io/body.ts';
import { streamSource } from '../io/arrivals.ts';

/** Sends HTTP requests: directly, or through a proxy. */
export interface Transport {
  /** Resolves with the response's headers. `signal` ends the body too. @throws Error of the
   *  connection, or the signal's reason */
  request(request: TransportRequest): Promise<TransportResponse>;
  proxied: boolean;
}

export interface TransportRequest {
  /** `http://host:port`, or https. */
  origin: string;
  /** Path and query. */
  path: string;
  method: 'GET' | 'HEAD';
  headers: Record<string, string>;
  signal: AbortSignal;
}

export interface TransportResponse {
  statusCode: number;
  headers: Record<string, string | string[] | undefined>;
  /** A chunk stays valid until the second pull after the one that returned it, as in `Blob.body`.
   *  Copy it to keep it longer. */
  body: BodySource;
  /** Call it instead of reading the rest of the body. A short rest is read, so that the connection
   *  can be reused; for a long rest the connection is closed. */
  abandon: (rest: 'short' | 'long') => void;
}

/** The size limit of a response's headers, in bytes. Registries behind single sign-on send cookies
 *  and policies beyond the 16 KiB that Node accepts by default. */
export const MAX_RESPONSE_HEADERS = 128 * 1024;

/** A response whose body is a stream. */
export function responseOf({
  statusCode,
  headers,
  body,
}: Pick<TransportResponse, 'statusCode' | 'headers'> & { body: Readable }): TransportResponse {
  return {
    statusCode,
    headers,
    body: streamSource(body, (error) => error as Error),
    abandon: (rest) => void (rest === 'short' ? body.resume() : body.destroy()),
  };
}

const PROXY_CODES = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ETIMEDOUT',
  'UND_ERR_CONNECT_TIMEOUT',
  'UND_ERR_PRX_TLS',
  'UND_ERR_PRX_CONN',
]);

/** A proxy's answer to CONNECT has at most this many bytes. */
const MAX_CONNECT_ANSWER = 256;

/** True for a connection that ended before a byte of an answer. clash reports an open tunnel before
 *  it looks for a node, and closes the tunnel if it finds none. After a TLS handshake, the upstream
 *  has been reached. */
function endsUnanswered(error: unknown, secure: boolean): boolean {
  const { code, message, socket } = error as NodeJS.ErrnoException & { socket?: { bytesRead?: number } };
  if (code === 'ECONNRESET') return message.includes('before secure TLS connection was established');
  return !secure && code === 'UND_ERR_SOCKET' && (socket?.bytesRead ?? Infinity) <= MAX_CONNECT_ANSWER;
}

/** Turns the error of a connection into a helpful one, and decides whether the proxy or the
 *  upstream failed. */
export function describeConnectionError(error: unknown, { proxied }: Pick<Transport, 'proxied'>, { host, protocol }: URL): OciError {
  if (error instanceof OciError) return error;
  const { code = '', message } = error as NodeJS.ErrnoException;
  const tunnel = /^Proxy response|SOCKS/i.test(message) || code.startsWith('UND_ERR_SOCKS') || code.startsWith('UND_ERR_PRX');
  if (proxied && (tunnel || PROXY_CODES.has(code) || endsUnanswered(error, protocol === 'https:'))) {
    return new OciError(
      'UNAVAILABLE',
      `cannot reach ${host} through the proxy (${code || message}): check that the proxy is running and has a live node`,
      { cause: error, origin: 'proxy' },
    );
  }
  if (code.includes('CERT') || code.includes('SELF_SIGNED') || code === 'UNABLE_TO_VERIFY_LEAF_SIGNATURE') {
    return new OciError('UNAVAILABLE', `the certificate of ${host} is not trusted (${code}): set the upstream's ca if it is your own`, {
      cause: error,
      origin: 'upstream',
    });
  }
  const advice = code === 'ENOTFOUND' || code === 'EAI_AGAIN' ? ': check its name, and the DNS of this machine' : '';
  return new OciError('UNAVAILABLE', `${host} cannot be reached (${code || message})${advice}`, { cause: error, origin: 'upstream' });
}
