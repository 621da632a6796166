import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { sha256, type TestImage } from './image.ts';
import { listenOnLoopback } from './http.ts';

/** The behaviour of the next responses. Empty: that of a correct registry. */
export interface Behaviour {
  /** Milliseconds before headers. */
  latency?: number;
  /** Bytes a second and connection. */
  rate?: number;
  /** Closes the connection after so many bytes of a body. */
  cutAfter?: number;
  /** Sends no more after so many bytes of a body, and keeps the connection. */
  silentAfter?: number;
  /** Answers with this status instead. */
  status?: number;
  headers?: Record<string, string>;
  /** Instead of the content. */
  body?: Buffer;
  /** Answers a range with the whole. */
  ignoreRange?: boolean;
  /** Does not answer. */
  silent?: boolean;
  /** Closes the connection instead of answering. */
  hangUp?: boolean;
  /** Sends 102 and 103 before its answer. */
  informational?: boolean;
  /** Repeats the content without end. */
  endless?: boolean;
  /** No Docker-Content-Digest. */
  noDigest?: boolean;
  /** No Content-Length. */
  chunked?: boolean;
}

export interface ScriptedRequest {
  method: string;
  path: string;
  range: string | undefined;
  authorization: string | undefined;
  accept: string | undefined;
  acceptEncoding: string | undefined;
  /** Bytes of the body that were passed to the connection. */
  bytes: number;
}

export interface ScriptedUpstream extends AsyncDisposable {
  url: string;
  requests: ScriptedRequest[];
  addBlob(bytes: Buffer, algorithm?: 'sha256' | 'sha512'): string;
  add(repository: string, tag: string, image: TestImage): void;
  addManifest(repository: string, tag: string, bytes: Buffer, mediaType?: string): string;
  remove(repository: string, tag: string): void;
  /** Called before each response. */
  behave: (request: ScriptedRequest, count: number) => Behaviour;
  /** Bytes of bodies of blobs, all together. */
  blobBytes(): number;
}

/** A scripted registry over content in memory, for behaviour that a correct registry never
 *  shows. */
export async function startScriptedUpstream(host = '127.0.0.1'): Promise<ScriptedUpstream> {
  const blobs = new Map<string, Buffer>();
  const manifests = new Map<string, { bytes: Buffer; mediaType: string; digest: string }>();
  const requests: ScriptedRequest[] = [];
  const server = createServer((request, response) => void answer(request, response).catch(() => response.destroy()));
  server.keepAliveTimeout = 1000;
  const listening = await listenOnLoopback(server, host);

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { authorization, accept, range } = request.headers;
    const path = request.url ?? '';
    const acceptEncoding = request.headers['accept-encoding'];
    const entry: ScriptedRequest = { method: request.method ?? '', path, range, authorization, accept, acceptEncoding, bytes: 0 };
    requests.push(entry);
    const how = upstream.behave(entry, requests.length);
    if (how.silent === true) return;
    if (how.hangUp === true) return void request.socket.destroy();
    if (how.informational === true) {
      response.writeProcessing();
      response.writeEarlyHints({ link: '</style.css>; rel=preload' });
    }
    if (how.latency !== undefined) await delay(how.latency);
    if (how.status !== undefined) {
      // In the format of a registry; a 404 of another web server does not count.
      const body = how.body ?? (how.status === 404 ? Buffer.from('{"errors":[{"code":"UNKNOWN","message":"scripted"}]}') : undefined);
      response.writeHead(how.status, { ...(how.status === 404 ? { 'content-type': 'application/json' } : {}), ...how.headers });
      response.end(entry.method === 'HEAD' ? undefined : body);
      return;
    }
    const [, repository = '', kind, reference = ''] = /^\/v2\/(.+)\/(manifests|blobs)\/([^/?]+)(?:\?|$)/.exec(path) ?? [];
    if (path === '/v2/') return void response.writeHead(200).end();
    if (path.includes('/tags/list')) {
      const name = /^\/v2\/(.+)\/tags\/list/.exec(path)?.[1] ?? '';
      const tags = [...manifests.keys()]
        .filter((key) => key.startsWith(`${name}@`) && !key.includes('sha256:'))
        .map((key) => key.split('@')[1]);
      return void response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ name, tags }));
    }
    const manifest = kind === 'manifests' ? manifests.get(`${repository}@${reference}`) : undefined;
    const bytes = how.body ?? (kind === 'manifests' ? manifest?.bytes : blobs.get(reference));
    if (bytes === undefined) return void response.writeHead(404, { 'content-type': 'application/json' }).end('{"errors":[]}');
    await send(entry, response, {
      bytes,
      how,
      mediaType: manifest?.mediaType ?? 'application/octet-stream',
      digest: manifest?.digest ?? reference,
    });
  }

  async function send(
    entry: ScriptedRequest,
    response: ServerResponse,
    content: { bytes: Buffer; how: Behaviour; mediaType: string; digest: string },
  ): Promise<void> {
    const { bytes, how, mediaType, digest } = content;
    const asked = how.ignoreRange === true ? null : /^bytes=(\d*)-(\d*)$/.exec(entry.range ?? '');
    const [, first = '', last = ''] = asked ?? [];
    const start = first === '' ? Math.max(0, last === '' ? 0 : bytes.length - Number(last)) : Number(first);
    const end = first === '' || last === '' ? bytes.length - 1 : Math.min(Number(last), bytes.length - 1);
    if (asked !== null && start > end) return void response.writeHead(416, { 'content-range': `bytes */${bytes.length}` }).end();
    const part = bytes.subarray(start, end + 1);
    response.writeHead(asked === null ? 200 : 206, {
      'content-type': mediaType,
      ...(how.noDigest === true ? {} : { 'docker-content-digest': digest }),
      ...(how.chunked === true ? {} : { 'content-length': String(part.length) }),
      ...(asked === null ? {} : { 'content-range': `bytes ${start}-${end}/${bytes.length}` }),
      ...how.headers,
    });
    if (entry.method === 'HEAD') return void response.end();
    response.flushHeaders();
    const limit = Math.min(how.cutAfter ?? Infinity, how.silentAfter ?? Infinity);
    const piece = how.rate === undefined ? 256 * 1024 : Math.max(1, Math.floor(how.rate / 50));
    let due = performance.now();
    let resume = () => {};
    for (const event of ['drain', 'close']) response.on(event, () => resume());
    for (let at = 0; at < part.length && !response.destroyed; at = how.endless === true && at + piece >= part.length ? 0 : at + piece) {
      const chunk = part.subarray(at, Math.min(at + piece, limit, part.length));
      entry.bytes += chunk.length;
      if (chunk.length > 0 && !response.write(chunk) && !response.closed) await new Promise<void>((resolve) => (resume = resolve));
      if (at + piece >= limit && limit < part.length) {
        if (how.cutAfter !== undefined) response.destroy();
        return;
      }
      if (how.rate !== undefined) {
        due += 20;
        await delay(Math.max(0, due - performance.now()));
      }
    }
    response.end();
  }

  const upstream: ScriptedUpstream = {
    url: listening.url,
    requests,
    behave: () => ({}),
    addBlob(bytes, algorithm = 'sha256') {
      const digest = `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}`;
      blobs.set(digest, bytes);
      return digest;
    },
    addManifest(repository, tag, bytes, mediaType = 'application/vnd.oci.image.manifest.v1+json') {
      const manifest = { bytes, mediaType, digest: sha256(bytes) };
      manifests.set(`${repository}@${tag}`, manifest);
      manifests.set(`${repository}@${manifest.digest}`, manifest);
      return manifest.digest;
    },
    add(repository, tag, image) {
      for (const { manifest, config, layers } of image.platforms) {
        for (const { digest, bytes } of [config, ...layers]) blobs.set(digest, bytes);
        upstream.addManifest(repository, manifest.digest, manifest.bytes, manifest.mediaType);
      }
      upstream.addManifest(repository, tag, image.root.bytes, image.root.mediaType);
    },
    remove: (repository, tag) => void manifests.delete(`${repository}@${tag}`),
    blobBytes: () =>
      requests.filter(({ path, method }) => method === 'GET' && path.includes('/blobs/')).reduce((sum, { bytes }) => sum + bytes, 0),
    [Symbol.asyncDispose]: () => listening[Symbol.asyncDispose](),
  };
  return upstream;
}
