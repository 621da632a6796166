import { readFile } from 'node:fs/promises';
import { fieldsOf, textOf } from '../io/untrusted.ts';
import { OciError } from '../oci/error.ts';
import type { ClusterAccess } from './kubeconfig.ts';

/** The parts of the Kubernetes API that this program uses, as paths and JSON. */
export interface Kubernetes {
  /** @returns undefined if there is no such object
   *  @throws OciError DENIED (RBAC forbids it), UNAVAILABLE */
  get(path: string, signal: AbortSignal): Promise<unknown>;
  /** Updates an object.
   *  @returns false if its resourceVersion is outdated: read it again
   *  @throws OciError DENIED, UNAVAILABLE */
  replace(path: string, object: unknown, signal: AbortSignal): Promise<boolean>;
  /** Server-side apply: sets the given fields and owns them, and leaves every other field to its
   *  manager.
   *  @param object with apiVersion, kind, metadata.name, and metadata.resourceVersion as it was
   *  read
   *  @returns false if its resourceVersion is outdated: read it again
   *  @throws OciError DENIED, UNAVAILABLE */
  apply(path: string, object: unknown, signal: AbortSignal): Promise<boolean>;
  /** Creates an object. @returns the object as the API server has it. @throws OciError DENIED,
   *  UNAVAILABLE */
  create(path: string, object: unknown, signal: AbortSignal): Promise<unknown>;
  /** A GET whose response lasts for minutes, such as a watch. Reading the body fails after
   *  MAX_SILENCE_MS without a byte.
   *  @returns the body's chunks; undefined for 410: the resourceVersion in the path is too old
   *  @throws OciError DENIED, UNAVAILABLE */
  stream(path: string, signal: AbortSignal): Promise<AsyncIterable<Uint8Array> | undefined>;
  close(): Promise<void>;
}

/** The name under which `metadata.managedFields` lists what the webhook wrote. */
export const FIELD_MANAGER = 'kube-registry-webhook';

const ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount';
const TIMEOUT_MS = 10_000;
const CONNECT_TIMEOUT_MS = 5_000;
const MAX_CONNECTIONS = 4;
/** API servers send a bookmark to each watch about once a minute. A connection that is silent for
 *  longer may be dead: a firewall or a load balancer can forget it without telling either side. */
const MAX_SILENCE_MS = 90_000;

interface Call {
  body?: unknown;
  contentType?: string;
  signal: AbortSignal;
}

/** Connects with the pod's service account, or outside a cluster with the kubeconfig. A
 *  few paths need no client library: the official one costs each webhook 80 MB of memory.
 *  @throws OciError UNAVAILABLE: neither is usable */
export async function connectKubernetes(env: NodeJS.ProcessEnv): Promise<Kubernetes> {
  const isInCluster = env['KUBERNETES_SERVICE_HOST'] !== undefined && env['KUBECONFIG'] === undefined;
  const access = isInCluster ? await serviceAccount(env) : await (await import('./kubeconfig.ts')).readKubeconfig(env);
  const { Agent, request } = await import('undici');
  const connect = { ...access.tls, timeout: CONNECT_TIMEOUT_MS };
  const dispatcher = new Agent({ connect, connections: MAX_CONNECTIONS });
  // Each stream holds a connection for as long as it lasts, so streams do not count among those of
  // calls.
  const streams = new Agent({ connect, headersTimeout: TIMEOUT_MS, bodyTimeout: MAX_SILENCE_MS });
  const headers = async () => ({ accept: 'application/json', 'user-agent': FIELD_MANAGER, ...(await access.headers()) });

  async function call(method: 'GET' | 'POST' | 'PUT' | 'PATCH', path: string, { body, contentType = 'application/json', signal }: Call) {
    try {
      const response = await request(access.server + path, {
        method,
        dispatcher,
        headers: { 'content-type': contentType, ...(await headers()) },
        signal: AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]),
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      return { status: response.statusCode, text: await response.body.text() };
    } catch (cause) {
      signal.throwIfAborted();
      throw new OciError('UNAVAILABLE', `the Kubernetes API does not answer ${method} ${path}`, { cause });
    }
  }

  async function write(method: 'PUT' | 'PATCH', path: string, options: Call): Promise<boolean> {
    const { status, text } = await call(method, path, options);
    if (status === 409) return false;
    if (status === 200 || status === 201) return true;
    throw failure(`${method} ${path}`, status, text);
  }

  return {
    async get(path, signal) {
      const { status, text } = await call('GET', path, { signal });
      if (status === 404) return undefined;
      if (status === 200) return JSON.parse(text) as unknown;
      throw failure(`GET ${path}`, status, text);
    },
    replace: (path, object, signal) => write('PUT', `${path}?fieldManager=${FIELD_MANAGER}`, { body: object, signal }),
    apply: (path, object, signal) =>
      write('PATCH', `${path}?fieldManager=${FIELD_MANAGER}&force=true`, {
        body: object,
        contentType: 'application/apply-patch+yaml', // JSON is YAML too
        signal,
      }),
    async create(path, object, signal) {
      const { status, text } = await call('POST', path, { body: object, signal });
      if (status === 200 || status === 201) return JSON.parse(text) as unknown;
      throw failure(`POST ${path}`, status, text);
    },
    async stream(path, signal) {
      const response = await request(access.server + path, { dispatcher: streams, headers: await headers(), signal }).catch(
        (cause: unknown) => {
          signal.throwIfAborted();
          throw new OciError('UNAVAILABLE', `the Kubernetes API does not answer GET ${path}`, { cause });
        },
      );
      if (response.statusCode === 200) return response.body;
      const text = await response.body.text();
      if (response.statusCode === 410) return undefined;
      throw failure(`GET ${path}`, response.statusCode, text);
    },
    async close() {
      await Promise.all([dispatcher.destroy(), streams.destroy()]);
    },
  };
}

function failure(doing: string, status: number, text: string): OciError {
  const denied = status === 401 || status === 403;
  return new OciError(denied ? 'DENIED' : 'UNAVAILABLE', `the Kubernetes API answers ${doing} with ${status}: ${messageOf(text)}`);
}

function messageOf(text: string): string {
  try {
    return (textOf(fieldsOf(JSON.parse(text))['message']) ?? '').slice(0, 300);
  } catch (error) {
    if (error instanceof SyntaxError) return text.slice(0, 300);
    throw error;
  }
}

async function serviceAccount(env: NodeJS.ProcessEnv): Promise<ClusterAccess> {
  const host = env['KUBERNETES_SERVICE_HOST'] ?? '';
  return {
    server: `https://${host.includes(':') ? `[${host}]` : host}:${env['KUBERNETES_SERVICE_PORT'] ?? '443'}`,
    tls: { ca: await readFile(`${ACCOUNT}/ca.crt`, 'utf8') },
    // Read for each request: the kubelet renews the token.
    headers: async () => ({ authorization: `Bearer ${(await readFile(`${ACCOUNT}/token`, 'utf8')).trim()}` }),
  };
}
