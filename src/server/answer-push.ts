import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Caller } from '../oci/caller.ts';
import { MAX_MANIFEST_SIZE } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import { isOciError, OciError } from '../oci/error.ts';
import type { Chunk, UploadId } from '../oci/push-registry.ts';
import { isRepository, type Repository } from '../oci/reference.ts';
import type { Log } from '../telemetry/log.ts';
import type { HostedRegistry } from './hosted-registry.ts';
import type { PushRequest } from './parse-push.ts';
import type { RequestBody } from './request-body.ts';
import { API_VERSION } from './send-error.ts';

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

/** A permitted request that writes, or queries an upload. */
export interface Push {
  request: IncomingMessage;
  response: ServerResponse;
  body: RequestBody;
  target: Target;
  caller: Caller;
  signal: AbortSignal;
}

export interface PushOptions {
  /** The minimum chunk size that is announced to the client, in bytes; undefined: none. */
  minChunkSize: number | undefined;
  log: Log;
}

/** Carries out a request and answers it. @throws OciError as the methods of `PushRegistry` do */
export async function answerPush(asked: PushRequest, push: Push, { minChunkSize, log }: PushOptions): Promise<void> {
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
  const bytes = await push.body.all(MAX_MANIFEST_SIZE);
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

/** A repository without its first component. */
export function withoutFirst(repository: Repository): Repository | undefined {
  const rest = repository.slice(repository.indexOf('/') + 1);
  return repository.includes('/') && isRepository(rest) ? rest : undefined;
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;
}

/** @throws OciError RANGE_INVALID: Content-Range is malformed, or its length is not the body's */
function chunkOf({ request, body: { batches: body } }: Push): Chunk {
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
