import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Action, Caller } from '../oci/caller.ts';
import { isOciError, OciError, type OciErrorCode } from '../oci/error.ts';
import { isRepository, type Repository } from '../oci/reference.ts';
import type { Log } from '../telemetry/log.ts';
import { answerPush, withoutFirst, type Push, type PushOptions } from './answer-push.ts';
import { signalOf } from './exchange.ts';
import type { HostedRegistry } from './hosted-registry.ts';
import type { RequestHandler } from './listen.ts';
import { parsePush, type PushRequest } from './parse-push.ts';
import { findEndpoint, parseNamespace, splitTarget } from './parse-request.ts';
import { openBody, type RequestBody } from './request-body.ts';
import { sendError } from './send-error.ts';
import { serveCatalog } from './serve-catalog.ts';
import { answerToken, readToken, TOKEN_PATH, tokenChallenge } from './token-login.ts';

export interface ServePushOptions extends PushOptions {
  /** By the first component of their repositories. */
  hosted: ReadonlyMap<string, HostedRegistry>;
  /** The first component of the repositories of this host (containerd's `?ns=`). */
  nameOf(this: void, host: string): string | undefined;
  /** @throws OciError UNAUTHORIZED (wrong credentials), TOOMANYREQUESTS, UNAVAILABLE */
  authenticate(this: void, request: IncomingMessage): Promise<Caller>;
  /** Whether Docker is asked to log in, by tokens (token-login.ts). */
  tokens?: boolean;
  /** Serves the reads of authenticated callers; absent: `next` does. */
  read?: RequestHandler;
}

/** A pushed manifest or blob that is wrong is the client's fault, not an upstream's. */
const STATUSES: Partial<Record<OciErrorCode, number>> = { MANIFEST_INVALID: 400, SIZE_INVALID: 400 };
const CHALLENGE = 'Basic realm="kube-registry", charset="UTF-8"';
const ACTIONS: Record<string, Action> = { GET: 'pull', HEAD: 'pull', DELETE: 'delete' };

/** Answers requests for hosted repositories: checks rights, and handles writes. Reads go to `read`,
 *  all other requests to `next` (distribution specification 1.1, "Push" and "Content
 *  Management"). */
export function servePush(next: RequestHandler, options: ServePushOptions): RequestHandler {
  const { read = next, tokens = false } = options;
  return async (request, response) => {
    const { path } = splitTarget(request.url ?? '');
    const isPing = path === '/v2/' || path === '/v2';
    if (tokens) readToken(request);
    // `helm registry login` takes the first response as the verdict on its password.
    const isLogin = isPing && request.headers.authorization !== undefined;
    const challenge = tokens && isPing && !isLogin ? tokenChallenge(request) : undefined;
    // Clients such as skopeo send credentials only if the first response asks for them.
    if (isPing) response.setHeader('WWW-Authenticate', challenge ?? CHALLENGE);
    const body = openBody(request, response);
    try {
      if (challenge !== undefined) throw new OciError('UNAUTHORIZED', 'ask for a token first');
      if (tokens && path === TOKEN_PATH) return await answerToken(request, response, options.authenticate);
      const name = findName(request.url ?? '', options);
      if (name === undefined && path !== '/v2/_catalog' && !isLogin) return await next(request, response);
      const caller = await options.authenticate(request);
      if (path === '/v2/_catalog') return await serveCatalog(request, response, { hosted: options.hosted, caller });
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
  await answerPush(push, { request, response, body, target, caller, signal }, options);
  return true;
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

function refusal({ name }: Caller, action: Action, url: string, response: ServerResponse): OciError {
  const path = splitTarget(url).path.slice('/v2/'.length);
  const what = `${action} ${/^(.+)\/(?:manifests|blobs|tags|referrers)\//.exec(path)?.[1] ?? path}`;
  if (name !== undefined) return new OciError('DENIED', `${name} may not ${what}`);
  response.setHeader('WWW-Authenticate', CHALLENGE);
  return new OciError('UNAUTHORIZED', `a login is needed to ${what}`);
}

function refuse({ request, response, body }: Pick<Push, 'request' | 'response' | 'body'>, error: unknown, log: Log): void {
  if (isOciError(error, 'UNAUTHORIZED') && !response.hasHeader('WWW-Authenticate')) response.setHeader('WWW-Authenticate', CHALLENGE);
  body.drain();
  if (response.closed) return;
  const status = sendError(response, error, { head: request.method === 'HEAD', statuses: STATUSES });
  const level = error instanceof OciError ? (status >= 500 ? 'warn' : 'debug') : 'error';
  log[level](
    { event: 'push-failed', error, method: request.method, path: splitTarget(request.url ?? '').path, status },
    'a push request failed',
  );
}
