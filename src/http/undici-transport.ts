import { readFileSync } from 'node:fs';
import { createSecureContext, rootCertificates, type SecureContextOptions } from 'node:tls';
import type { Agent, Dispatcher } from 'undici';
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
  /** For requests of other kinds: sends them in the same way, but over connections of its own. */
  openDispatcher(this: void): Promise<Dispatcher>;
}

/** Creates a pool of HTTP/1.1 connections, which are kept alive. Through a proxy, names are never
 *  resolved here: CONNECT and SOCKS carry them (promise 16: the local DNS may be poisoned). undici
 *  is loaded by the first request that needs it: a registry is ready 50 ms earlier without it. */
export function createTransport(options: TransportOptions): PooledTransport {
  const timeout = options.connectTimeout ?? 5000;
  const tls = tlsOptions(options);
  const isDirect = options.proxy === 'direct';
  const lookup = isDirect && options.externalOnly === true ? { lookup: lookupExternal } : {};
  let opened: Promise<Dispatcher> | undefined;
  const openDispatcher = (): Promise<Dispatcher> =>
    (opened ??= isDirect
      ? openAgent({ timeout, autoSelectFamily: true, ...tls, ...lookup })
      : openProxyAgent(options.proxy, { timeout, requestTls: tls }));
  if (isDirect) return { ...createRawTransport({ connectTimeout: timeout, ...lookup, ...tls }), openDispatcher };
  return { openDispatcher, proxied: true, request: async (request) => dispatch(await openDispatcher(), request) };
}

const POOL = {
  connections: CONNECTIONS,
  pipelining: 1,
  keepAliveTimeout: KEEP_ALIVE_MS,
  bodyTimeout: 0,
  headersTimeout: 0,
  maxHeaderSize: MAX_RESPONSE_HEADERS,
  allowH2: false,
} as const;

async function openAgent(connect: Agent.Options['connect']): Promise<Dispatcher> {
  const { Agent } = await import('undici');
  return new Agent({ ...POOL, connect });
}

/** `timeout`: milliseconds, to connect. */
async function openProxyAgent(proxy: string, { timeout, requestTls }: { timeout: number; requestTls: TlsOptions }): Promise<Dispatcher> {
  const { ProxyAgent, Socks5ProxyAgent } = await import('undici');
  if (new URL(proxy).protocol.startsWith('socks5')) {
    const uri = proxy.replace(/^socks5h:/, 'socks5:'); // with both, the proxy resolves names
    return new Socks5ProxyAgent(uri, { ...POOL, connectTimeout: timeout, requestTls });
  }
  const tunnel = { uri: proxy, proxyTunnel: true, connectTimeout: timeout };
  return new ProxyAgent({ ...POOL, ...tunnel, requestTls: { timeout: 2 * timeout, ...requestTls } });
}

interface TlsOptions {
  secureContext?: ReturnType<typeof createSecureContext>;
}

/** One TLS context for all connections: with a context each, every connection would parse some 140
 *  certificates again, into memory that the garbage collector does not see. */
function tlsOptions({ ca, clientCertificate }: TransportOptions): TlsOptions {
  if (ca === undefined && clientCertificate === undefined) return {};
  const context: SecureContextOptions = {
    ...(ca === undefined ? {} : { ca: [...rootCertificates, readFileSync(ca, 'utf8')] }),
    ...(clientCertificate === undefined
      ? {}
      : { cert: readFileSync(clientCertificate.certFile), key: readFileSync(clientCertificate.keyFile) }),
  };
  return { secureContext: createSecureContext(context) };
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
