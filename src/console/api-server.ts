import type { IncomingMessage, ServerResponse } from 'node:http';
import type { z } from 'zod';
import { isAbsent, isOciError, type OciError, type OciErrorCode } from '../oci/error.ts';
import type { RequestHandler } from '../server/listen.ts';
import { splitTarget } from '../server/parse-request.ts';
import type { Log } from '../telemetry/log.ts';
import type { ApiError } from './api/common.ts';
import { ACTION_HEADER, OPERATIONS, type Operation, type OperationName } from './api/operations.ts';
import { isOwnPage } from './origin.ts';
import { readJson } from './read-json.ts';
import { REPLICA_HEADER } from './replicas.ts';
import { readToken, sessionCookie } from './session-cookie.ts';
import type { Session } from './sessions.ts';

type Parsed<Schema> = Schema extends z.ZodType ? z.output<Schema> : undefined;
type QueryOf<Name extends OperationName> = (typeof OPERATIONS)[Name] extends { query: infer Schema } ? Parsed<Schema> : undefined;
type BodyOf<Name extends OperationName> = (typeof OPERATIONS)[Name] extends { body: infer Schema } ? Parsed<Schema> : undefined;
type ResponseOf<Name extends OperationName> = z.output<(typeof OPERATIONS)[Name]['response']>;

/** A request whose parts have been checked. */
export interface ApiRequest<Query, Body> {
  query: Query;
  body: Body;
  /** The user of the request; undefined: not logged in. */
  session: Session | undefined;
  /** The session's token, if the request has one. */
  token: string | undefined;
  /** The request comes from another replica: the response covers this replica alone. */
  alone: boolean;
  client: { address: string; isGone(this: void): boolean };
  signal: AbortSignal;
  /** Sets the client's session cookie; undefined removes it. */
  setSession(this: void, started: { token: string; session: Session } | undefined): void;
}

export type ApiHandlers = {
  [Name in OperationName]: (request: ApiRequest<QueryOf<Name>, BodyOf<Name>>) => ResponseOf<Name> | Promise<ResponseOf<Name>>;
};
type AnyHandler = (request: ApiRequest<unknown, unknown>) => unknown;

export interface ApiOptions {
  handlers: ApiHandlers;
  /** The user whose session has this token; undefined: there is none. */
  findSession(this: void, token: string, alone: boolean): Promise<Session | undefined>;
  log: Log;
}

/** An error of the API with its status. */
export class ApiFailure extends Error {
  override readonly name = 'ApiFailure';
  readonly code: ApiError['error']['code'];
  constructor(code: ApiError['error']['code'], message: string) {
    super(message);
    this.code = code;
  }
}

const STATUS: Record<ApiError['error']['code'], number> = {
  BAD_REQUEST: 400,
  UNAUTHORIZED: 401,
  DENIED: 403,
  NOT_FOUND: 404,
  METHOD_NOT_ALLOWED: 405,
  CONFLICT: 409,
  TOO_MANY_REQUESTS: 429,
  UNAVAILABLE: 503,
  INTERNAL: 500,
};
const FROM_OCI: Partial<Record<OciErrorCode, ApiError['error']['code']>> = {
  UNAUTHORIZED: 'UNAUTHORIZED',
  DENIED: 'DENIED',
  TOOMANYREQUESTS: 'TOO_MANY_REQUESTS',
  UNAVAILABLE: 'UNAVAILABLE',
  NAME_INVALID: 'BAD_REQUEST',
  TAG_INVALID: 'BAD_REQUEST',
  DIGEST_INVALID: 'BAD_REQUEST',
};

const HEADERS = { 'cache-control': 'no-store', 'x-content-type-options': 'nosniff', 'cross-origin-resource-policy': 'same-origin' };

/** The operations of the console's API. */
export function serveApi({ handlers, findSession, log }: ApiOptions): RequestHandler {
  const byPath = operationsOf(handlers);
  return async (request, response) => {
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    try {
      sendJson(request, response, 200, await answer({ byPath, findSession }, { request, response }, gone.signal));
    } catch (error) {
      if (response.closed) return;
      const failure = failureOf(error);
      if (failure.code === 'INTERNAL')
        log.error({ event: 'console-failed', error, path: request.url?.split('?', 1)[0] }, 'the console failed');
      if (isOciError(error) && error.retryAfter !== undefined) response.setHeader('retry-after', Math.ceil(error.retryAfter));
      if (!request.complete) response.shouldKeepAlive = false; // the rest of its body is not needed
      sendJson(request, response, STATUS[failure.code], { error: { code: failure.code, message: failure.message } });
    }
  };
}

type OperationsByPath = ReadonlyMap<string, ReadonlyMap<string, { operation: Operation; handle: AnyHandler }>>;

/** The operations by their paths and methods. */
function operationsOf(handlers: ApiOptions['handlers']): OperationsByPath {
  const byPath = new Map<string, Map<string, { operation: Operation; handle: AnyHandler }>>();
  for (const [name, operation] of Object.entries<Operation>(OPERATIONS)) {
    const methods = byPath.get(operation.path) ?? new Map<string, { operation: Operation; handle: AnyHandler }>();
    byPath.set(operation.path, methods.set(operation.method, { operation, handle: handlers[name as OperationName] as AnyHandler }));
  }
  return byPath;
}

async function answer(
  { byPath, findSession }: { byPath: OperationsByPath } & Pick<ApiOptions, 'findSession'>,
  { request, response }: { request: IncomingMessage; response: ServerResponse },
  signal: AbortSignal,
): Promise<unknown> {
  const { path, query } = splitTarget(request.url ?? '');
  const methods = byPath.get(path);
  if (methods === undefined) throw new ApiFailure('NOT_FOUND', 'there is no such operation; /api/openapi.json lists them');
  const method = request.method === 'HEAD' ? 'GET' : (request.method ?? '');
  const found = methods.get(method);
  if (found === undefined) {
    response.setHeader('allow', [...methods.keys()].join(', '));
    throw new ApiFailure('METHOD_NOT_ALLOWED', `${method} is no method of ${path}`);
  }
  const { operation, handle } = found;
  if (method !== 'GET') requireOwnPage(request);
  const alone = request.headers[REPLICA_HEADER] === '1';
  const token = readToken(request);
  const session = token === undefined ? undefined : await findSession(token, alone);
  if (operation.acts && session === undefined) throw new ApiFailure('UNAUTHORIZED', 'log in first');
  return handle({
    query: parse(operation.query, Object.fromEntries(new URLSearchParams(query))),
    body: operation.body === undefined ? undefined : parse(operation.body, await readJson(request)),
    session,
    token,
    alone,
    client: { address: request.socket.remoteAddress ?? '', isGone: () => response.closed },
    signal,
    setSession: (started) => response.setHeader('set-cookie', sessionCookie(request, started)),
  });
}

function requireOwnPage(request: IncomingMessage): void {
  if (isOwnPage(request)) return;
  throw new ApiFailure('DENIED', `only the console's own page may do this: send ${ACTION_HEADER}, and no other Origin`);
}

/** @throws ApiFailure BAD_REQUEST: names each wrong key */
function parse(schema: z.ZodType | undefined, value: unknown): unknown {
  if (schema === undefined) return undefined;
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issues = result.error.issues.slice(0, 5).map(({ path, message }) => `${path.join('.') || 'the request'}: ${message}`);
  throw new ApiFailure('BAD_REQUEST', issues.join('; '));
}

function failureOf(error: unknown): Pick<ApiFailure, 'code' | 'message'> {
  if (error instanceof ApiFailure) return error;
  if (!isOciError(error)) return { code: 'INTERNAL', message: "the console failed unexpectedly; see the registry's log" };
  return { code: codeOf(error), message: error.message };
}

function codeOf(error: OciError): ApiError['error']['code'] {
  const { code } = error;
  return isAbsent(error) ? 'NOT_FOUND' : (FROM_OCI[code] ?? 'INTERNAL');
}

function sendJson({ method }: IncomingMessage, response: ServerResponse, status: number, value: unknown): void {
  const body = Buffer.from(JSON.stringify(value));
  response.writeHead(status, { ...HEADERS, 'content-type': 'application/json; charset=utf-8', 'content-length': body.length });
  response.end(method === 'HEAD' ? undefined : body);
}
