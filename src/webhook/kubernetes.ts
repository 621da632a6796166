import { readFile } from 'node:fs/promises';
import { Agent, request } from 'undici';
import { OciError } from '../oci/error.ts';
import { fieldsOf, textOf } from '../io/untrusted.ts';

/** The Kubernetes API, by paths and JSON. */
export interface Kubernetes {
  /** undefined: there is none. @throws OciError DENIED (RBAC), UNAVAILABLE */
  get(path: string, signal: AbortSignal): Promise<unknown>;
  /** Replaces an object by a newer state of itself; false: somebody else was faster (its resourceVersion is old). */
  replace(path: string, object: unknown, signal: AbortSignal): Promise<boolean>;
  close(): Promise<void>;
}

const ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount';
const TIMEOUT = 10_000;

interface Access {
  server: string;
  /** Of TLS. */
  connect: { ca?: string | Buffer; cert?: string | Buffer; key?: string | Buffer; rejectUnauthorized?: boolean };
  headers: () => Promise<Record<string, string>>;
}

/** By the pod's service account, or outside a cluster by the kubeconfig. The whole client library would cost each webhook some 80 MB of
 *  memory for four requests; its reading of kubeconfigs is loaded only where there is one.
 *  @throws OciError UNAVAILABLE: neither is there */
export async function connectKubernetes(env: NodeJS.ProcessEnv): Promise<Kubernetes> {
  const access =
    env['KUBERNETES_SERVICE_HOST'] === undefined || env['KUBECONFIG'] !== undefined ? await byKubeconfig() : await byAccount(env);
  const dispatcher = new Agent({ connect: { ...access.connect, timeout: 5000 }, connections: 4 });

  async function call(method: 'GET' | 'PUT', path: string, { body, signal }: { body?: unknown; signal: AbortSignal }) {
    try {
      const response = await request(access.server + path, {
        method,
        dispatcher,
        headers: { accept: 'application/json', 'content-type': 'application/json', ...(await access.headers()) },
        signal: AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT)]),
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      return { status: response.statusCode, text: await response.body.text() };
    } catch (cause) {
      signal.throwIfAborted();
      throw new OciError('UNAVAILABLE', `the Kubernetes API does not answer ${method} ${path}`, { cause });
    }
  }

  return {
    async get(path, signal) {
      const { status, text } = await call('GET', path, { signal });
      if (status === 404) return undefined;
      if (status === 200) return JSON.parse(text) as unknown;
      throw failure(`GET ${path}`, status, text);
    },
    async replace(path, object, signal) {
      const { status, text } = await call('PUT', path, { body: object, signal });
      if (status === 409) return false;
      if (status === 200 || status === 201) return true;
      throw failure(`PUT ${path}`, status, text);
    },
    close: () => dispatcher.destroy(),
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

async function byAccount(env: NodeJS.ProcessEnv): Promise<Access> {
  const host = env['KUBERNETES_SERVICE_HOST'] ?? '';
  const server = `https://${host.includes(':') ? `[${host}]` : host}:${env['KUBERNETES_SERVICE_PORT'] ?? '443'}`;
  return {
    server,
    connect: { ca: await readFile(`${ACCOUNT}/ca.crt`) },
    // Read each time: the kubelet renews it.
    headers: async () => ({ authorization: `Bearer ${(await readFile(`${ACCOUNT}/token`, 'utf8')).trim()}` }),
  };
}

async function byKubeconfig(): Promise<Access> {
  const { KubeConfig } = await import('@kubernetes/client-node');
  const config = new KubeConfig();
  config.loadFromDefault();
  const cluster = config.getCurrentCluster();
  if (cluster === null) throw new OciError('UNAVAILABLE', 'no Kubernetes cluster: neither a service account nor a kubeconfig is here');
  const options: Parameters<typeof config.applyToHTTPSOptions>[0] = {};
  await config.applyToHTTPSOptions(options);
  const { ca, cert, key, rejectUnauthorized } = options as Access['connect'];
  const connect = Object.fromEntries(Object.entries({ ca, cert, key, rejectUnauthorized }).filter(([, value]) => value !== undefined));
  return {
    server: cluster.server.replace(/\/$/, ''),
    connect,
    async headers() {
      const fresh: Parameters<typeof config.applyToHTTPSOptions>[0] = {};
      await config.applyToHTTPSOptions(fresh);
      const entries = Object.entries(fresh.headers ?? {}).filter((entry): entry is [string, string] => typeof entry[1] === 'string');
      return Object.fromEntries(entries);
    },
  };
}
