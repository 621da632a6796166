import type { Readable } from 'node:stream';
import { OciError } from '../oci/error.ts';
import { streamSource } from '../io/arrivals.ts';
import type { BodySource } from '../io/body.ts';

/** The way out to a host. */
export interface Way {
  /** Resolves with the headers; `signal` ends the body too. @throws Error of the connection */
  request(request: WayRequest): Promise<WayResponse>;
  proxied: boolean;
}

export interface WayRequest {
  /** `http://host:port`, or https. */
  origin: string;
  /** Path and query. */
  path: string;
  method: 'GET' | 'HEAD';
  headers: Record<string, string>;
  signal: AbortSignal;
}

export interface WayResponse {
  statusCode: number;
  headers: Record<string, string | string[] | undefined>;
  /** What it gives stays valid until the second pull after it, as of `Blob.body`; who keeps it for longer copies it. */
  body: BodySource;
  /** Nobody reads the rest: a short one is taken, so that the connection can be kept, a long one cut. */
  abandon: (rest: 'short' | 'long') => void;
}

/** A response whose body is a stream. */
export function responseOf({ statusCode, headers, body }: Pick<WayResponse, 'statusCode' | 'headers'> & { body: Readable }): WayResponse {
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

/** Bytes: what proxies say of a tunnel that they open. */
const TUNNEL_GREETING = 256;

/** True for a connection that ended before a byte of an answer. clash says that a tunnel is open before it looks for a node, and
 *  closes it when it finds none. Once there is TLS, an upstream has been reached. */
function endsUnanswered(error: unknown, secure: boolean): boolean {
  const { code, message, socket } = error as NodeJS.ErrnoException & { socket?: { bytesRead?: number } };
  if (code === 'ECONNRESET') return message.includes('before secure TLS connection was established');
  return !secure && code === 'UND_ERR_SOCKET' && (socket?.bytesRead ?? Infinity) <= TUNNEL_GREETING;
}

/** Makes an error of the connection one that a person can act on, and says whether the proxy is to blame. */
export function describeConnectionError(error: unknown, way: Way, url: URL): OciError {
  if (error instanceof OciError) return error;
  const { host } = url;
  const { code = '', message } = error as NodeJS.ErrnoException;
  const tunnel = /^Proxy response|SOCKS/i.test(message) || code.startsWith('UND_ERR_SOCKS') || code.startsWith('UND_ERR_PRX');
  if (way.proxied && (tunnel || PROXY_CODES.has(code) || endsUnanswered(error, url.protocol === 'https:'))) {
    return new OciError('UNAVAILABLE', `the proxy gives no way to ${host} (${code || message}): is it running, and has it a live node?`, {
      cause: error,
      origin: 'proxy',
    });
  }
  if (code.includes('CERT') || code.includes('SELF_SIGNED') || code === 'UNABLE_TO_VERIFY_LEAF_SIGNATURE') {
    return new OciError('UNAVAILABLE', `${host} has a certificate that is not trusted (${code}): set the upstream's ca if it is your own`, {
      cause: error,
      origin: 'upstream',
    });
  }
  return new OciError('UNAVAILABLE', `${host} cannot be reached (${code || message})`, { cause: error, origin: 'upstream' });
}
