import { readFileSync } from 'node:fs';
import { createSecureContext, rootCertificates, type SecureContextOptions } from 'node:tls';
import { Agent, ProxyAgent, Socks5ProxyAgent, type Dispatcher } from 'undici';
import { createArrivals } from '../io/arrivals.ts';
import { lookupExternal } from './addresses.ts';
import { CONNECTIONS, createRawTransport, KEEP_ALIVE_MS } from './raw/raw-transport.ts';
import { MAX_RESPONSE_HEADERS, type Transport, type TransportRequest, type TransportResponse } from './transport.ts';

export interface TransportOptions {
  /** `direct`, or an http, https, socks5 or socks5h URL. */
  proxy: string;
  /** A PEM file of certificate authorities to trust in addition to the default ones. */
  ca?: string | undefined;
  /** PEM files of the certificate to present, and of its key. */
  clientCertificate?: { certFile: string; keyFile: string } | undefined;
  /** Milliseconds; 5 s by default. */
  connectTimeout?: number;
  /** Refuse to connect to internal addresses, under any name. */
  externalOnly?: boolean;
}

export interface PooledTransport extends Transport {
  /** Requests of other kinds, in the same way but over connections of their own. */
  dispatcher: Dispatcher;
}

/** Creates a pool of HTTP/1.1 connections, which are kept alive. Through a proxy, names are never
 *  resolved here: CONNECT and SOCKS carry them (promise 16: the local DNS may be poisoned). */
export function createTransport(options: TransportOptions): PooledTransport {
  const timeout = options.connectTimeout ?? 5000;
  const tls = tlsOptions(options);
  const pool = {
    connections: CONNECTIONS,
    pipelining: 1,
    keepAliveTimeout: KEEP_ALIVE_MS,
    bodyTimeout: 0,
    headersTimeout: 0,
    maxHeaderSize: MAX_RESPONSE_HEADERS,
    allowH2: false,
  } as const;
  if (options.proxy === 'direct') {
    const lookup = options.externalOnly === true ? { lookup: lookupExternal } : {};
    const dispatcher = new Agent({ ...pool, connect: { timeout, autoSelectFamily: true, ...tls, ...lookup } });
    return { ...createRawTransport({ connectTimeout: timeout, ...lookup, ...tls }), dispatcher };
  }
  const { protocol } = new URL(options.proxy);
  if (protocol.startsWith('socks5')) {
    const uri = options.proxy.replace(/^socks5h:/, 'socks5:'); // with both, the proxy resolves names
    return over(new Socks5ProxyAgent(uri, { ...pool, connectTimeout: timeout, requestTls: tls }), { proxied: true });
  }
  const dispatcher = new ProxyAgent({
    ...pool,
    uri: options.proxy,
    proxyTunnel: true,
    connectTimeout: timeout,
    requestTls: { timeout: 2 * timeout, ...tls },
  });
  return over(dispatcher, { proxied: true });
}

/** One TLS context for all connections: with a context each, every connection would parse some 140
 *  certificates again, into memory that the garbage collector does not see. */
function tlsOptions({ ca, clientCertificate }: TransportOptions): { secureContext?: ReturnType<typeof createSecureContext> } {
  if (ca === undefined && clientCertificate === undefined) return {};
  const context: SecureContextOptions = {
    ...(ca === undefined ? {} : { ca: [...rootCertificates, readFileSync(ca, 'utf8')] }),
    ...(clientCertificate === undefined
      ? {}
      : { cert: readFileSync(clientCertificate.certFile), key: readFileSync(clientCertificate.keyFile) }),
  };
  return { secureContext: createSecureContext(context) };
}

function over(dispatcher: Dispatcher, { proxied }: { proxied: boolean }): PooledTransport {
  return { dispatcher, proxied, request: (request) => dispatch(dispatcher, request) };
}

/** Sends a request and reads its body directly from the connection. `dispatcher.request` would put
 *  a stream in between, which buffers two chunks, and would keep the chunks that contained the
 *  headers: 16 MB with 64 downloads at once. */
function dispatch(dispatcher: Dispatcher, { signal, ...request }: TransportRequest): Promise<TransportResponse> {
  const answer = Promise.withResolvers<TransportResponse>();
  let controller: Dispatcher.DispatchController | undefined;
  let abandoned = false;
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
    controller?.abort(new Error('the body was abandoned'));
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
          abandoned = true;
          controller?.resume();
        },
      });
    },
    onResponseData(_, chunk) {
      if (!abandoned && chunk.length > 0) arrivals.arrive(chunk);
    },
    onResponseEnd: () => conclude(),
    onResponseError: (_, error) => conclude(error),
  });
  return answer.promise;
}
