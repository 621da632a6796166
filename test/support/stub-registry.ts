import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createTransport } from '../../src/http/undici-transport.ts';
import { parseRepository, parseTag } from '../../src/oci/reference.ts';
import { noRegistryMetrics } from '../../src/telemetry/registry-metrics.ts';
import { unlimited } from '../../src/upstream/rate-limit.ts';
import { upstream, type RegistryAddress, type UpstreamOptions, type UpstreamReaders } from '../../src/upstream/upstream.ts';
import { sha256 } from './image.ts';

export const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
export const REPOSITORY = parseRepository('acme/web');
export const TAG = parseTag('1');

/** A request to a stub, and how to answer it. */
export interface Call {
  method: string;
  /** Path and query. */
  path: string;
  url: URL;
  headers: IncomingMessage['headers'];
  /** `acme/web`, `manifests`, `1`. */
  repository: string;
  kind: string;
  reference: string;
  response: ServerResponse;
  /** @param body JSON unless it is bytes or text */
  send(this: void, status: number, body?: unknown, headers?: Record<string, string>): void;
  /** An error in the specification's form. */
  refuse(this: void, status: number, message?: string, headers?: Record<string, string>): void;
}

export interface Stub extends AsyncDisposable {
  url: string;
  host: string;
  calls: Call[];
  /** `GET /v2/acme/web/manifests/1 Bearer T`, of all calls so far; they are forgotten. */
  seen(this: void): string[];
}

/** A server that answers by `handle`. `hostname`: its name, to distinguish two on
 *  127.0.0.1. */
export async function startStub(handle: (call: Call) => void, hostname = '127.0.0.1'): Promise<Stub> {
  const calls: Call[] = [];
  const server = createServer((request, response) => {
    const path = request.url ?? '';
    const [, repository = '', kind = '', reference = ''] =
      /^(?:\/[^?]*)?\/v2\/(.+)\/(manifests|blobs|tags|referrers)\/([^?]+)/.exec(path) ?? [];
    const send: Call['send'] = (status, body = '', headers = {}) => {
      const isRaw = typeof body === 'string' || Buffer.isBuffer(body);
      const bytes = isRaw ? Buffer.from(body) : Buffer.from(JSON.stringify(body));
      response.writeHead(status, { ...(isRaw ? {} : { 'content-type': 'application/json' }), 'content-length': bytes.length, ...headers });
      response.end(request.method === 'HEAD' ? undefined : bytes);
    };
    const refuse: Call['refuse'] = (status, message = 'refused', headers = {}) =>
      send(status, { errors: [{ code: 'UNKNOWN', message }] }, headers);
    const { method = '', headers } = request;
    const call: Call = { method, path, url: new URL(path, 'http://stub'), headers, repository, kind, reference, response, send, refuse };
    calls.push(call);
    handle(call);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const host = `${hostname}:${(server.address() as AddressInfo).port}`;
  return {
    url: `http://${host}`,
    host,
    calls,
    seen: () => calls.splice(0).map(({ method, path, headers }) => `${method} ${path} ${headers.authorization ?? ''}`.trim()),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

/** An image without layers, and a blob. */
export const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST, layers: [] }));
export const blob = Buffer.from('a blob of some thirty-two bytes.');
export const digest = sha256(blob) as Parameters<UpstreamReaders['registry']['blob']>[1];

/** Answers as a registry that has `manifest` under every tag, and `blob`. */
export function serveContent({ kind, reference, headers, send, refuse }: Call): void {
  if (kind === 'manifests') return send(200, manifest, { 'content-type': MANIFEST, 'docker-content-digest': sha256(manifest) });
  if (kind === 'tags') return send(200, { tags: ['1'] });
  if (kind !== 'blobs' || reference !== digest) return refuse(404, 'unknown');
  const [, start, end] = /^bytes=(\d+)-(\d*)$/.exec(headers.range ?? '') ?? [];
  if (start === undefined) return send(200, blob, { 'content-type': 'application/octet-stream' });
  const last = Math.min(Number(end === '' ? Infinity : end), blob.length - 1);
  send(206, blob.subarray(Number(start), last + 1), { 'content-range': `bytes ${start}-${last}/${blob.length}` });
}

export interface OpenOptions extends Partial<Omit<UpstreamOptions, 'mirrors'>> {
  mirrors?: (Partial<RegistryAddress> & { url: string })[];
}

/** The upstream at `url`, as the registry reads it. */
export function openUpstream(url: string, { mirrors = [], ...options }: OpenOptions = {}): UpstreamReaders {
  const transport = createTransport({ proxy: 'direct', connectTimeout: 1000 });
  const routes = { own: transport, outside: transport };
  const address = { routes, credentials: [], authHosts: [] };
  const usual = { name: 'hub', url, ...address, rateLimit: unlimited, metrics: noRegistryMetrics };
  return upstream({ ...usual, ...options, mirrors: mirrors.map((mirror) => ({ ...address, ...mirror })) });
}

export function login(username: string, password: string, repositories = '') {
  return { repositories, username: () => Promise.resolve(username), password: () => Promise.resolve(password) };
}

export function basic(username: string, password: string): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}

export const context = () => ({ signal: AbortSignal.timeout(30_000) });

/** Reads all of a blob or a part of it. */
export async function readBlob({ registry }: Pick<UpstreamReaders, 'registry'>, range?: { start: number; end?: number }): Promise<Buffer> {
  const { body } = await registry.blob(REPOSITORY, digest, { ...context(), ...(range === undefined ? {} : { range }) });
  const chunks: Uint8Array[] = [];
  for await (const chunk of body) chunks.push(Uint8Array.from(chunk));
  return Buffer.concat(chunks);
}
