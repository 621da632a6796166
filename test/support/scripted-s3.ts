import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import type { AddressInfo } from 'node:net';

export interface S3Request {
  method: string;
  /** With the query. */
  path: string;
  key: string;
  query: URLSearchParams;
  headers: IncomingHttpHeaders;
  body: Buffer;
}

export type Answer = (response: ServerResponse) => void;

/** A small S3 in memory with one bucket, `images`, that answers as a test says. */
export interface ScriptedS3 extends AsyncDisposable {
  url: string;
  objects: Map<string, { bytes: Buffer; modified: Date }>;
  requests: S3Request[];
  /** The response instead of S3's; undefined: S3's response. */
  behave: (request: S3Request) => Answer | undefined;
  /** How far its clock is ahead, in ms. */
  ahead: number;
}

/** An answer with an XML body. */
export function xml(status: number, body: string, headers: Record<string, string> = {}): Answer {
  return (response) => response.writeHead(status, { 'content-type': 'application/xml', ...headers }).end(body);
}

export function s3Error(
  status: number,
  code: string,
  { message = code, headers = {} }: { message?: string; headers?: Record<string, string> } = {},
): Answer {
  return xml(status, `<Error><Code>${code}</Code><Message>${message}</Message></Error>`, { 'x-amz-request-id': '1', ...headers });
}

/** A response that only a server in front of S3 would send: a web page. */
export function html(status: number): Answer {
  return (response) => response.writeHead(status, { 'content-type': 'text/html' }).end(`<html><body><h1>${status}</h1><hr></body></html>`);
}

export async function startScriptedS3(tls?: { key: string; cert: string }): Promise<ScriptedS3> {
  const handler = (request: IncomingMessage, response: ServerResponse) => void answer(request, response).catch(() => response.destroy());
  const server = tls === undefined ? createServer(handler) : createSecureServer(tls, handler);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');

  async function answer(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = '', url = '', headers } = incoming;
    const { pathname, searchParams: query } = new URL(url, 'http://s3');
    const key = decodeURIComponent(pathname).replace(/^\/images\/?/, '');
    const chunks: Buffer[] = [];
    for await (const chunk of incoming) chunks.push(chunk as Buffer);
    const request: S3Request = { method, path: url, key, query, headers, body: Buffer.concat(chunks) };
    self.requests.push(request);
    if (self.ahead !== 0) response.setHeader('date', new Date(Date.now() + self.ahead).toUTCString());
    const instead = self.behave(request) ?? usual(request);
    instead(response); // Node leaves the body of a HEAD's answer out
  }

  function usual({ method, key, query, headers, body }: S3Request): Answer {
    if (method === 'PUT' && key !== '') {
      const source = headers['x-amz-copy-source'];
      const copied = source === undefined ? undefined : self.objects.get(decodeURIComponent(String(source)).replace(/^\/?images\//, ''));
      if (source !== undefined && copied === undefined) return s3Error(404, 'NoSuchKey');
      const bytes = copied?.bytes ?? body;
      if (query.has('uploadId')) parts.set(Number(query.get('partNumber')), bytes);
      else self.objects.set(key, { bytes, modified: new Date() });
      if (copied !== undefined) return xml(200, '<CopyObjectResult><ETag>"x"</ETag></CopyObjectResult>');
      return (response) => response.setHeader('etag', '"x"').end();
    }
    if (method === 'POST' && query.has('uploads')) {
      parts.clear();
      return xml(200, '<InitiateMultipartUploadResult><UploadId>upload-1</UploadId></InitiateMultipartUploadResult>');
    }
    if (method === 'POST' && parts.size > 0) {
      const bytes = Buffer.concat([...parts].sort(([one], [other]) => one - other).map(([, part]) => part));
      self.objects.set(key, { bytes, modified: new Date() });
      parts.clear();
    }
    if (method === 'POST') return xml(200, '<CompleteMultipartUploadResult><ETag>"x"</ETag></CompleteMultipartUploadResult>');
    if (method === 'DELETE') {
      if (query.has('uploadId')) parts.clear();
      else self.objects.delete(key);
      return (response) => response.writeHead(204).end();
    }
    if (key === '' && query.has('uploads')) return xml(200, '<ListMultipartUploadsResult></ListMultipartUploadsResult>');
    if (key === '' && query.has('versioning')) return xml(200, '<VersioningConfiguration></VersioningConfiguration>');
    if (key === '' && method === 'GET') return xml(200, listing(query));
    if (key === '') return (response) => response.end();
    const found = self.objects.get(key);
    if (found === undefined) return s3Error(404, 'NoSuchKey');
    const { bytes, modified } = found;
    const head = { 'last-modified': modified.toUTCString(), etag: '"x"', 'content-length': bytes.length };
    const [, first, last = ''] = /^bytes=(\d+)-(\d*)$/.exec(headers.range ?? '') ?? [];
    if (first === undefined) return (response) => response.writeHead(200, head).end(bytes);
    const part = bytes.subarray(Number(first), last === '' ? undefined : Number(last) + 1);
    const range = `bytes ${first}-${Number(first) + part.length - 1}/${bytes.length}`;
    return (response) => response.writeHead(206, { ...head, 'content-length': part.length, 'content-range': range }).end(part);
  }

  function listing(query: URLSearchParams): string {
    const [prefix, after, max] = [query.get('prefix') ?? '', query.get('start-after') ?? '', Number(query.get('max-keys') ?? 1000)];
    const keys = [...self.objects.keys()].filter((key) => key.startsWith(prefix) && key > after).sort();
    const entries = keys.slice(0, max).map((key) => {
      const { bytes, modified } = self.objects.get(key) ?? { bytes: Buffer.alloc(0), modified: new Date() };
      return `<Contents><Key>${key}</Key><Size>${bytes.length}</Size><LastModified>${modified.toISOString()}</LastModified></Contents>`;
    });
    return `<ListBucketResult><IsTruncated>${keys.length > max}</IsTruncated>${entries.join('')}</ListBucketResult>`;
  }

  /** Of the one upload in parts that there is at a time. */
  const parts = new Map<number, Buffer>();
  const self: ScriptedS3 = {
    url: `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${(server.address() as AddressInfo).port}`,
    objects: new Map(),
    requests: [],
    behave: () => undefined,
    ahead: 0,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
  return self;
}
