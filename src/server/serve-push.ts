import type { IncomingMessage, ServerResponse } from 'node:http';
import { MAX_MANIFEST_SIZE } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import type { Action, Caller } from '../oci/caller.ts';
import { isOciError, OciError, type OciErrorCode } from '../oci/error.ts';
import type { Chunk, PushRegistry, UploadId } from '../oci/push-registry.ts';
import { isRepository, type Repository } from '../oci/reference.ts';
import type { Log } from '../telemetry/log.ts';
import type { RequestHandler } from './listen.ts';
import { parsePush, type PushRequest } from './parse-push.ts';
import { findEndpoint, parseNamespace, splitTarget } from './parse-request.ts';
import { openBody, type RequestBody } from './request-body.ts';
import { API_VERSION, sendError } from './send-error.ts';

/** A hosted registry, whose repositories share their first component. */
export interface HostedRegistry {
  registry: PushRegistry;
  /** @param repository without the first component */
  isAllowed(this: void, caller: Caller, action: Action, repository: Repository): boolean;
}

export interface ServePushOptions {
  /** By the first component of their repositories. */
  hosted: ReadonlyMap<string, HostedRegistry>;
  /** The first component of the repositories of this host (containerd's `?ns=`). */
  nameOf(this: void, host: string): string | undefined;
  /** @throws OciError UNAUTHORIZED (wrong credentials), TOOMANYREQUESTS, UNAVAILABLE */
  authenticate(this: void, request: IncomingMessage): Promise<Caller>;
  /** Serves the reads of authenticated callers; absent: `next` does. */
  read?: RequestHandler;
  /** Chunks shorter than this many bytes cost more; undefined: they do not. */
  minChunkSize: number | undefined;
  log: Log;
}

/** The repository that a request is for. */
interface Target {
  hosted: HostedRegistry;
  /** Without the first component. */
  repository: Repository;
  /** The start of a Location: the path of the repository as the client wrote it. */
  path: string;
  /** The end of a Location: `?ns=…`, or nothing. */
  query: string;
}

interface Push {
  request: IncomingMessage;
  response: ServerResponse;
  body: RequestBody;
  target: Target;
  caller: Caller;
  signal: AbortSignal;
}

/** A pushed manifest or blob that is wrong is the client's fault, not an upstream's. */
const STATUSES: Partial<Record<OciErrorCode, number>> = { MANIFEST_INVALID: 400, SIZE_INVALID: 400 };
const CHALLENGE = 'Basic realm="kube-registry", charset="UTF-8"';
const MAX_PAGE = 10_000;
const ACTIONS: Record<string, Action> = { GET: 'pull', HEAD: 'pull', DELETE: 'delete' };

/** Answers requests for hosted repositories: checks rights, and handles writes. Reads go to `read`,
 *  all other requests to `next` (distribution specification 1.1, "Push" and "Content
 *  Management"). */
export function servePush(next: RequestHandler, options: ServePushOptions): RequestHandler {
  const { read = next } = options;
  return async (request, response) => {
    const { path } = splitTarget(request.url ?? '');
    const isPing = path === '/v2/' || path === '/v2';
    // Clients such as skopeo send credentials only if the first response asks for them.
    if (isPing) response.setHeader('WWW-Authenticate', CHALLENGE);
    // `helm registry login` takes the first response as the verdict on its password.
    const isLogin = isPing && request.headers.authorization !== undefined;
    const body = openBody(request, response);
    try {
      const name = findName(request.url ?? '', options);
      if (name === undefined && path !== '/v2/_catalog' && !isLogin) return await next(request, response);
      const caller = await options.authenticate(request);
      if (path === '/v2/_catalog') return await answerCatalog(request, response, { ...options, caller });
      const hosted = name === undefined ? undefined : options.hosted.get(name);
      if (hosted === undefined || name === undefined) return await read(request, response);
      const signal = signalOf(response);
      const isHandled = await answer({ request, response, body, caller, hosted, name, signal }, options);
      if (!isHandled) return await read(request, response);
    } catch (error) {
      refuse({ request, response, body }, error, options.log);
    }
  };
}

interface Asked {
  request: IncomingMessage;
  response: ServerResponse;
  body: RequestBody;
  caller: Caller;
  hosted: HostedRegistry;
  name: string;
  signal: AbortSignal;
}

/** @returns false for a permitted read, which is not answered here */
async function answer({ request, response, body, caller, hosted, name, signal }: Asked, options: ServePushOptions): Promise<boolean> {
  const method = request.method ?? '';
  const push = parsePush(method, request.url ?? '');
  const repository = repositoryOf(request.url ?? '', name, push);
  const action = push?.kind === 'upload-status' || push?.kind === 'cancel-upload' ? 'push' : (ACTIONS[method] ?? 'push');
  if (!hosted.isAllowed(caller, action, repository ?? ('' as Repository))) throw refusal(caller, action, request.url ?? '', response);
  if (push === undefined || repository === undefined) {
    if (action === 'pull') return false;
    response.setHeader('Allow', 'GET, HEAD');
    throw new OciError('UNSUPPORTED', `${method} is not supported here`);
  }
  const target = { hosted, repository, path: `/v2/${push.repository}`, query: push.namespace === undefined ? '' : `?ns=${push.namespace}` };
  await carryOut(push, { request, response, body, target, caller, signal }, options);
  return true;
}

async function carryOut(asked: PushRequest, push: Push, { minChunkSize, log }: ServePushOptions): Promise<void> {
  const { target, signal } = push;
  const { registry } = target.hosted;
  switch (asked.kind) {
    case 'start-upload':
      return startUpload(asked, push, minChunkSize);
    case 'upload-status':
      return sendUpload(push, { status: 204, id: asked.id, size: await registry.uploadedSize(target.repository, asked.id, { signal }) });
    case 'append':
      return append(asked.id, push);
    case 'finish-upload':
      return finish(asked, push);
    case 'cancel-upload':
      await registry.cancelUpload(target.repository, asked.id, { signal });
      return send(push, 204, []);
    case 'put-manifest':
      return putManifest(asked, push, log);
    case 'delete-manifest':
      await registry.deleteManifest(target.repository, asked.reference, { signal });
      log.info({ event: 'manifest-deleted', ...whatOf(push), reference: asked.reference }, 'a manifest or tag was deleted');
      return send(push, 202, []);
    case 'delete-blob':
      await registry.deleteBlob(target.repository, asked.digest, { signal });
      log.info({ event: 'blob-deleted', ...whatOf(push), digest: asked.digest }, 'a blob was deleted');
      return send(push, 202, []);
  }
}

async function startUpload(
  asked: Extract<PushRequest, { kind: 'start-upload' }>,
  push: Push,
  minChunkSize: number | undefined,
): Promise<void> {
  const { target, signal } = push;
  const { registry } = target.hosted;
  if (asked.mount !== undefined && (await mount(asked.mount, asked.from, push))) return sendBlob(push, asked.mount);
  if (asked.mount === undefined && asked.digest !== undefined && hasBody(push.request)) {
    await registry.putBlob(target.repository, asked.digest, { chunk: chunkOf(push), signal });
    return sendBlob(push, asked.digest);
  }
  const id = await registry.startUpload(target.repository, { signal });
  const hint = minChunkSize === undefined ? [] : ['OCI-Chunk-Min-Length', String(minChunkSize)];
  sendUpload(push, { status: 202, id, size: 0, headers: hint });
}

/** Mounts the blob from `from`, or from any repository that the caller may pull from. */
async function mount(digest: Digest, from: Repository | undefined, { target, caller, signal }: Push): Promise<boolean> {
  const { registry, isAllowed } = target.hosted;
  const sources: Repository[] = [];
  if (from !== undefined) {
    const own = target.query === '' ? withoutFirst(from) : from;
    if (own !== undefined) sources.push(own);
  } else for await (const repository of registry.repositoriesWith(digest, { signal })) sources.push(repository);
  const readable = sources.filter((repository) => isAllowed(caller, 'pull', repository));
  return (await registry.mountBlob(target.repository, digest, { from: readable, signal })) !== undefined;
}

async function append(id: UploadId, push: Push): Promise<void> {
  const { target, response, signal } = push;
  const { registry } = target.hosted;
  try {
    const size = await registry.appendChunk(target.repository, id, { chunk: chunkOf(push), signal });
    sendUpload(push, { status: 202, id, size });
  } catch (error) {
    if (isOciError(error, 'RANGE_INVALID')) response.setHeaders(new Map(Object.entries(uploadHeaders(push, id, error.size ?? 0))));
    throw error;
  }
}

async function finish({ id, digest }: { id: UploadId; digest: Digest }, push: Push): Promise<void> {
  const { target, request, response, signal } = push;
  const chunk = hasBody(request) ? { chunk: chunkOf(push) } : {};
  try {
    await target.hosted.registry.finishUpload(target.repository, id, { digest, ...chunk, signal });
  } catch (error) {
    if (isOciError(error, 'RANGE_INVALID')) response.setHeaders(new Map(Object.entries(uploadHeaders(push, id, error.size ?? 0))));
    throw error;
  }
  sendBlob(push, digest);
}

async function putManifest(asked: Extract<PushRequest, { kind: 'put-manifest' }>, push: Push, log: Log): Promise<void> {
  const { target, request, signal } = push;
  const bytes = await readBytes(push.body.chunks);
  if (bytes === undefined) throw new OciError('MANIFEST_INVALID', `the manifest has more than the ${MAX_MANIFEST_SIZE} bytes allowed`);
  const { reference, tags } = asked;
  const mediaType = request.headers['content-type'] ?? '';
  const { descriptor, subject } = await target.hosted.registry.putManifest(target.repository, reference, {
    bytes,
    mediaType,
    tags,
    signal,
  });
  const { digest } = descriptor;
  log.info({ event: 'manifest-pushed', ...whatOf(push), reference, digest }, 'a manifest was pushed');
  const headers = ['Location', `${target.path}/manifests/${digest}${target.query}`, 'Docker-Content-Digest', digest];
  if (subject !== undefined) headers.push('OCI-Subject', subject);
  if (tags.length > 0) headers.push('OCI-Tag', tags.join(', '));
  send(push, 201, headers);
}

/** @returns undefined if there are more bytes than a manifest may have */
async function readBytes(chunks: AsyncIterable<Uint8Array>): Promise<Buffer | undefined> {
  const read: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of chunks) {
    size += chunk.length;
    if (size > MAX_MANIFEST_SIZE) return undefined;
    read.push(chunk);
  }
  return Buffer.concat(read);
}

/** @throws OciError PAGINATION_NUMBER_INVALID, UNSUPPORTED */
async function answerCatalog(
  request: IncomingMessage,
  response: ServerResponse,
  { hosted, caller }: ServePushOptions & { caller: Caller },
): Promise<void> {
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.setHeader('Allow', 'GET, HEAD');
    throw new OciError('UNSUPPORTED', `${request.method} is not supported here`);
  }
  const query = new URLSearchParams(splitTarget(request.url ?? '').query);
  const count = query.get('n') ?? String(MAX_PAGE);
  if (!/^[1-9]\d{0,8}$/.test(count)) {
    throw new OciError('PAGINATION_NUMBER_INVALID', `n is not a count of repositories: ${JSON.stringify(count.slice(0, 160))}`);
  }
  const n = Math.min(Number(count), MAX_PAGE);
  const last = query.get('last') ?? '';
  const signal = signalOf(response);
  const names: string[] = [];
  for (const [name, { registry, isAllowed }] of [...hosted].sort(([one], [other]) => (one < other ? -1 : 1))) {
    if (last !== '' && name < (last.split('/', 1)[0] ?? '')) continue;
    const rest = last.startsWith(`${name}/`) ? last.slice(name.length + 1) : '';
    for await (const repository of registry.repositories({ signal, ...(isRepository(rest) ? { last: rest } : {}) })) {
      if (names.length > n) break;
      if (isAllowed(caller, 'pull', repository)) names.push(`${name}/${repository}`);
    }
  }
  const page = names.slice(0, n);
  const headers = ['Content-Type', 'application/json; charset=utf-8'];
  if (names.length > n) headers.push('Link', `</v2/_catalog?n=${n}&last=${encodeURIComponent(page.at(-1) ?? '')}>; rel="next"`);
  const body = Buffer.from(JSON.stringify({ repositories: page }));
  response
    .writeHead(200, [...API_VERSION, ...headers, 'Content-Length', String(body.length)])
    .end(request.method === 'HEAD' ? undefined : body);
}

/** The hosted registry that a request is for, by the first component of its path or by `?ns=`. */
function findName(url: string, { hosted, nameOf }: ServePushOptions): string | undefined {
  const { path, query } = splitTarget(url);
  if (!path.startsWith('/v2/')) return undefined;
  const namespace = namespaceOf(query);
  if (namespace !== undefined) {
    const name = nameOf(namespace);
    return name !== undefined && hosted.has(name) ? name : undefined;
  }
  const first = path.split('/', 3)[2] ?? '';
  return hosted.has(first) ? first : undefined;
}

function repositoryOf(url: string, name: string, push: PushRequest | undefined): Repository | undefined {
  if (push !== undefined) return push.namespace === undefined ? withoutFirst(push.repository) : push.repository;
  const { path, query } = splitTarget(url);
  const { name: text } = findEndpoint(path.slice('/v2/'.length));
  const own = namespaceOf(query) === undefined ? text.slice(name.length + 1) : text;
  return isRepository(own) ? own : undefined;
}

/** @throws OciError NAME_INVALID: `ns` is not a host */
function namespaceOf(query: string | undefined): string | undefined {
  return query === undefined ? undefined : parseNamespace(new URLSearchParams(query).get('ns'));
}

function withoutFirst(repository: Repository): Repository | undefined {
  const rest = repository.slice(repository.indexOf('/') + 1);
  return repository.includes('/') && isRepository(rest) ? rest : undefined;
}

function refusal({ name }: Caller, action: Action, url: string, response: ServerResponse): OciError {
  const path = splitTarget(url).path.slice('/v2/'.length);
  const what = `${action} ${/^(.+)\/(?:manifests|blobs|tags|referrers)\//.exec(path)?.[1] ?? path}`;
  if (name !== undefined) return new OciError('DENIED', `${name} may not ${what}`);
  response.setHeader('WWW-Authenticate', CHALLENGE);
  return new OciError('UNAUTHORIZED', `a login is needed to ${what}`);
}

function refuse({ request, response, body }: Pick<Push, 'request' | 'response' | 'body'>, error: unknown, log: Log): void {
  if (isOciError(error, 'UNAUTHORIZED')) response.setHeader('WWW-Authenticate', CHALLENGE);
  body.drain();
  if (response.closed) return;
  const status = sendError(response, error, { head: request.method === 'HEAD', statuses: STATUSES });
  const level = error instanceof OciError ? (status >= 500 ? 'warn' : 'debug') : 'error';
  log[level](
    { event: 'push-failed', error, method: request.method, path: splitTarget(request.url ?? '').path, status },
    'a push request failed',
  );
}

function signalOf(response: ServerResponse): AbortSignal {
  const controller = new AbortController();
  response.once('close', () => {
    if (!response.writableFinished) controller.abort(new DOMException('the client has disconnected', 'AbortError'));
  });
  return controller.signal;
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;
}

/** @throws OciError RANGE_INVALID: Content-Range is malformed, or its length is not the body's */
function chunkOf({ request, body: { chunks: body } }: Push): Chunk {
  const header = request.headers['content-length'];
  const length = header === undefined ? undefined : Number(header);
  const range = request.headers['content-range'];
  if (range === undefined) return { start: undefined, length, body };
  const [, first, last] = /^(?:bytes[ =])?(\d{1,15})-(\d{1,15})(?:\/(?:\d+|\*))?$/.exec(range) ?? [];
  const [start, end] = [Number(first), Number(last)];
  if (first === undefined || end < start || (length !== undefined && length !== end - start + 1)) {
    throw new OciError(
      'RANGE_INVALID',
      `the Content-Range ${JSON.stringify(range.slice(0, 80))} does not fit the chunk; write <first>-<last>`,
    );
  }
  return { start, length: end - start + 1, body };
}

function uploadHeaders({ target }: Push, id: UploadId, size: number): Record<string, string> {
  return {
    Location: `${target.path}/blobs/uploads/${id}${target.query}`,
    Range: `0-${Math.max(0, size - 1)}`,
    'Docker-Upload-UUID': id,
  };
}

function sendUpload(
  push: Push,
  { status, id, size, headers = [] }: { status: number; id: UploadId; size: number; headers?: readonly string[] },
): void {
  send(push, status, [...Object.entries(uploadHeaders(push, id, size)).flat(), ...headers]);
}

function sendBlob(push: Push, digest: Digest): void {
  const { path, query } = push.target;
  send(push, 201, ['Location', `${path}/blobs/${digest}${query}`, 'Docker-Content-Digest', digest]);
}

function send({ response, body }: Push, status: number, headers: readonly string[]): void {
  body.drain(); // if the handler has not read it
  const length = status === 204 ? [] : ['Content-Length', '0'];
  response.writeHead(status, [...API_VERSION, ...headers, ...length]).end();
}

function whatOf({ target, caller }: Push): { repository: string; by: string } {
  return { repository: target.path.slice('/v2/'.length), by: caller.name ?? 'anonymous' };
}
