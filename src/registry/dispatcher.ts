import { readFileSync } from 'node:fs';
import { rootCertificates } from 'node:tls';
import { Agent, ProxyAgent, Socks5ProxyAgent, type Dispatcher } from 'undici';
import { OciError } from '../oci/error.ts';
import { lookupExternal } from './addresses.ts';

export interface DispatcherOptions {
  /** `direct`, or an http, https, socks5 or socks5h URL. */
  proxy: string;
  /** A PEM file to trust beside the usual authorities. */
  ca?: string | undefined;
  /** Milliseconds. */
  connectTimeout?: number;
  /** Names that lead to internal addresses do not resolve. */
  externalOnly?: boolean;
}

/** The way out to a host. */
export interface Way {
  dispatcher: Dispatcher;
  proxied: boolean;
}

/** To one host. More than what all fills may hold at once (see fills.ts): a tag is asked for even while they hold all of theirs. */
const CONNECTIONS = 512;

/** A pool of HTTP/1.1 connections, kept alive. Through a proxy, names are never resolved here: CONNECT and SOCKS carry them
 *  (DESIGN promise 16: the local DNS may be poisoned). */
export function createWay(options: DispatcherOptions): Way {
  const timeout = options.connectTimeout ?? 5000;
  const tls = options.ca === undefined ? {} : { ca: [...rootCertificates, readFileSync(options.ca, 'utf8')] };
  const pool = {
    connections: CONNECTIONS,
    pipelining: 1,
    keepAliveTimeout: 30_000,
    bodyTimeout: 0,
    headersTimeout: 0,
    allowH2: false,
  } as const;
  if (options.proxy === 'direct') {
    const lookup = options.externalOnly === true ? { lookup: lookupExternal as never } : {};
    return { dispatcher: new Agent({ ...pool, connect: { timeout, autoSelectFamily: true, ...tls, ...lookup } }), proxied: false };
  }
  const { protocol } = new URL(options.proxy);
  if (protocol.startsWith('socks5')) {
    const uri = options.proxy.replace(/^socks5h:/, 'socks5:'); // both leave names to the proxy
    return { dispatcher: new Socks5ProxyAgent(uri, { ...pool, connectTimeout: timeout, requestTls: tls }), proxied: true };
  }
  return {
    dispatcher: new ProxyAgent({
      ...pool,
      uri: options.proxy,
      proxyTunnel: true,
      connectTimeout: timeout,
      requestTls: { timeout: 2 * timeout, ...tls },
    }),
    proxied: true,
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
