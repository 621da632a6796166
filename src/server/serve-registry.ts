import { upstreamNameOf, withoutCapability } from '../oci/capability.ts';
import { isOciError, isPolicyRefusal, OciError } from '../oci/error.ts';
import { parsePrivateName } from '../oci/private-name.ts';
import { joinRepository, type Reference, type Repository } from '../oci/reference.ts';
import type { Registry } from '../oci/registry.ts';
import type { Log } from '../telemetry/log.ts';
import type { AccessLog, PullOutcome } from './access-log.ts';
import { openExchange, sendBytes, type Exchange } from './exchange.ts';
import type { RequestHandler } from './listen.ts';
import { MIRROR_CHALLENGE } from './mirror-login.ts';
import { parseRequest, type ParsedRequest } from './parse-request.ts';
import { API_VERSION, sendError } from './send-error.ts';
import { serveBlobs, type BlobOptions } from './serve-blobs.ts';
import { serveDocuments } from './serve-documents.ts';

/** A request and its response, for logs and metrics. */
export interface Served {
  /** The upstream's name; `unknown` if it is not configured, `none` if the request named none. */
  upstream: string;
  method: string;
  kind: ParsedRequest['kind'] | 'none';
  outcome: 'ok' | 'stale' | 'error' | 'gone';
  /** 499: the client disconnected before the response was complete. */
  status: number;
  /** Length of the response body. */
  bytes: number;
  seconds: number;
  /** The client's address. */
  client: string;
  /** The node, as named by its agent; not verified. */
  node: string | undefined;
}

/** The header in which an agent sends the name of its node. */
export const NODE_HEADER = 'x-kube-registry-node';

export interface ServeOptions extends BlobOptions {
  log: Log;
  /** The upstream's name for logs and metrics, by the first component of a repository; undefined:
   *  there is no such upstream. */
  nameOf(this: void, first: string): string | undefined;
  /** The upstream whose images are named by this host (containerd's `?ns=`). */
  upstreamOf(this: void, host: string): string | undefined;
  observe?: (served: Served) => void;
  /** If upstream refuses a request that a container runtime sends to a mirror (`?ns=`) without
   *  credentials, the answer is a challenge. */
  challengesMirrors?: boolean;
  /** The access log. */
  accessLog?: AccessLog | undefined;
}

const PING = Buffer.from('{}');
const PING_HEADERS = [...API_VERSION, 'Content-Type', 'application/json', 'Content-Length', String(PING.length)];

/** The read half of the OCI distribution specification 1.1 over `registry`. A client's Accept
 *  header never selects content: a reference must mean the same for every client. */
export function serveRegistry(registry: Registry, options: ServeOptions): RequestHandler {
  const { challengesMirrors = false } = options;
  const documents = serveDocuments(registry, options);
  const answerBlob = serveBlobs(registry, options);

  function answer(exchange: Exchange, parsed: ParsedRequest): Promise<void> | void {
    switch (parsed.kind) {
      case 'ping':
        return sendBytes(exchange, [...PING_HEADERS], PING);
      case 'unsupported':
        exchange.response.shouldKeepAlive = false; // its body, if any, is not needed
        exchange.response.setHeader('Allow', parsed.allow);
        throw new OciError('UNSUPPORTED', parsed.message);
      case 'manifest':
        return documents.manifest(exchange, beginPull(exchange, parsed, options), parsed.reference);
      case 'blob':
        return answerBlob(exchange, beginPull(exchange, parsed, options), parsed.digest);
      case 'tags':
        return documents.tags(exchange, locate(exchange, parsed, options), parsed);
      case 'referrers':
        return documents.referrers(exchange, locate(exchange, parsed, options), parsed);
    }
  }

  return async (request, response) => {
    const started = performance.now();
    const exchange = openExchange(request, response);
    let failure: Failure | undefined;
    try {
      const parsed = parseRequest(request.method ?? '', request.url ?? '');
      exchange.kind = parsed.kind;
      await answer(exchange, parsed);
    } catch (error) {
      failure = {
        error,
        status: response.closed ? 499 : sendError(response, error, challengesMirrors ? asChallenge(exchange, error) : exchange),
      };
    }
    const served = servedOf(exchange, failure, (performance.now() - started) / 1000);
    options.observe?.(served);
    exchange.pulled?.({ digest: exchange.digest, bytes: served.bytes, status: served.status, outcome: pullOutcome(served, exchange) });
    logRequest(options.log, served, { path: request.url, error: failure?.error });
  };
}

/** Notes the upstream of a request, and the headers of its response.
 *  @returns the repository, with its upstream's name in front
 *  @throws OciError NAME_UNKNOWN: no upstream has the host of `?ns=` */
function locate(
  exchange: Exchange,
  { repository, namespace }: { repository: Repository; namespace: string | undefined },
  { nameOf, upstreamOf }: Pick<ServeOptions, 'nameOf' | 'upstreamOf'>,
): Repository {
  if (namespace === undefined) {
    exchange.upstream = nameOf(upstreamNameOf(repository)) ?? 'unknown';
    return repository;
  }
  exchange.namespace = namespace;
  const upstream = upstreamOf(namespace);
  exchange.upstream = upstream ?? 'unknown';
  if (upstream === undefined) {
    throw new OciError(
      'NAME_UNKNOWN',
      `no upstream has the host ${namespace}; add it to registry.otherHosts, without a glob if it is internal, or under registry.upstreams with its url and hosts`,
    );
  }
  // Otherwise ids of pull secrets would be sent to the upstream and its mirrors.
  if (parsePrivateName(repository) !== undefined) throw new OciError('NAME_UNKNOWN', 'private names are pulled without ?ns=');
  exchange.headers = [...API_VERSION, 'OCI-Namespace', namespace];
  return joinRepository(upstream, repository);
}

/** Asks for the pod's own credentials if the request was refused without them.
 *  @returns the options for sending the error */
function asChallenge(exchange: Exchange, error: unknown): Parameters<typeof sendError>[2] {
  const { request, response, namespace } = exchange;
  const isAnonymous = namespace !== undefined && request.headers.authorization === undefined;
  if (!isAnonymous || response.headersSent || isPolicyRefusal(error) || !isOciError(error, 'UNAUTHORIZED', 'DENIED')) return exchange;
  response.setHeader('WWW-Authenticate', MIRROR_CHALLENGE);
  return { ...exchange, statuses: { DENIED: 401 } };
}

/** Locates the repository of a pull, and starts its entry in the access log. */
function beginPull(
  exchange: Exchange,
  parsed: { repository: Repository; namespace: string | undefined; reference?: Reference },
  options: Pick<ServeOptions, 'nameOf' | 'upstreamOf' | 'accessLog'>,
): Repository {
  const repository = locate(exchange, parsed, options);
  const { accessLog } = options;
  if (accessLog !== undefined) {
    const asked = { repository: withoutCapability(repository), reference: parsed.reference };
    exchange.pulled = accessLog.begin({ ...senderOf(exchange), upstream: exchange.upstream, ...asked });
  }
  return repository;
}

function pullOutcome({ outcome, status }: Served, { cached }: Exchange): PullOutcome {
  if (outcome === 'gone' || outcome === 'stale') return outcome;
  if (outcome === 'error') return status === 401 || status === 403 ? 'denied' : 'error';
  return cached;
}

function senderOf({ request }: Exchange): Pick<Served, 'client' | 'node'> {
  const node = request.headers[NODE_HEADER];
  return { client: request.socket.remoteAddress ?? '', node: typeof node === 'string' ? node.slice(0, MAX_NODE_NAME) : undefined };
}

/** The maximum length of a node's name in Kubernetes (a DNS subdomain, RFC 1123). */
const MAX_NODE_NAME = 253;

interface Failure {
  error: unknown;
  status: number;
}

function servedOf(exchange: Exchange, failure: Failure | undefined, seconds: number): Served {
  const { request, response, upstream, kind, bytes, stale } = exchange;
  const gone = response.closed && !response.writableFinished;
  const { client, node } = senderOf(exchange);
  return {
    upstream,
    method: request.method ?? '',
    kind,
    outcome: gone ? 'gone' : failure !== undefined ? 'error' : stale ? 'stale' : 'ok',
    status: gone ? 499 : (failure?.status ?? response.statusCode),
    bytes,
    seconds,
    client,
    node,
  };
}

/** Successful requests, client errors and disconnects are logged at level debug. */
function logRequest(log: Log, served: Served, { path = '', error }: { path: string | undefined; error: unknown }): void {
  const unexpected = error !== undefined && !(error instanceof OciError) && served.outcome !== 'gone';
  const level = unexpected ? 'error' : served.status >= 500 ? 'warn' : 'debug';
  if (!log.isLevelEnabled(level)) return;
  const entry = { ...served, path: path.split('?', 1)[0]?.slice(0, 512) };
  if (error === undefined) log[level]({ event: 'request-served', ...entry }, 'request served');
  else log[level]({ event: 'request-failed', ...entry, error }, unexpected ? 'request failed unexpectedly' : 'request failed');
}
