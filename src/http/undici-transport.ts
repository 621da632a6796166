import { readFileSync } from 'node:fs';
import { rootCertificates } from 'node:tls';
import { Agent, ProxyAgent, Socks5ProxyAgent, type Dispatcher } from 'undici';
import { lookupExternal } from './addresses.ts';
import { dispatched } from './dispatched.ts';
import { CONNECTIONS, createNearWay, KEPT } from './raw/raw-transport.ts';
import type { Way } from './transport.ts';

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

export interface PooledWay extends Way {
  /** Its connections. */
  dispatcher: Dispatcher;
}

/** A pool of HTTP/1.1 connections, kept alive. Through a proxy, names are never resolved here: CONNECT and SOCKS carry them
 *  (promise 16: the local DNS may be poisoned). */
export function createWay(options: DispatcherOptions): PooledWay {
  const timeout = options.connectTimeout ?? 5000;
  const tls = options.ca === undefined ? {} : { ca: [...rootCertificates, readFileSync(options.ca, 'utf8')] };
  const pool = {
    connections: CONNECTIONS,
    pipelining: 1,
    keepAliveTimeout: KEPT,
    bodyTimeout: 0,
    headersTimeout: 0,
    allowH2: false,
  } as const;
  if (options.proxy === 'direct') {
    const lookup = options.externalOnly === true ? { lookup: lookupExternal } : {};
    const secure = by(new Agent({ ...pool, connect: { timeout, autoSelectFamily: true, ...tls, ...lookup } }), { proxied: false });
    const plain = createNearWay({ connectTimeout: timeout, ...lookup });
    return { ...secure, request: (request) => (request.origin.startsWith('http:') ? plain : secure).request(request) };
  }
  const { protocol } = new URL(options.proxy);
  if (protocol.startsWith('socks5')) {
    const uri = options.proxy.replace(/^socks5h:/, 'socks5:'); // both leave names to the proxy
    return by(new Socks5ProxyAgent(uri, { ...pool, connectTimeout: timeout, requestTls: tls }), { proxied: true });
  }
  const dispatcher = new ProxyAgent({
    ...pool,
    uri: options.proxy,
    proxyTunnel: true,
    connectTimeout: timeout,
    requestTls: { timeout: 2 * timeout, ...tls },
  });
  return by(dispatcher, { proxied: true });
}

function by(dispatcher: Dispatcher, { proxied }: { proxied: boolean }): PooledWay {
  return { dispatcher, proxied, request: (request) => dispatched(dispatcher, request) };
}
