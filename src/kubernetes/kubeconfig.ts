import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { delimiter, dirname, join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { parse } from 'yaml';
import { fieldsOf, itemsOf, textOf, textsOf, type Fields } from '../io/untrusted.ts';
import { OciError } from '../oci/error.ts';

/** How to reach and to authenticate to an API server. */
export interface ClusterAccess {
  /** `https://10.0.0.1:6443`, without a slash at the end. */
  server: string;
  /** Options of tls.connect; PEM. */
  tls: { ca?: string; cert?: string; key?: string; rejectUnauthorized?: boolean; servername?: string };
  /** The headers that authenticate a request; read again for each one, since tokens expire. */
  headers(): Promise<Record<string, string | string[]>>;
}

/** A short-lived credential is renewed when it has less than this left. */
const RENEW_BEFORE_MS = 60_000;
const PLUGIN_TIMEOUT_MS = 60_000;
const INSTEAD = 'use `kubectl get pods -A -o json` and --pods instead';

/** Reads the current context of the kubeconfig that `$KUBECONFIG` names, or of `~/.kube/config`:
 *  client certificates, tokens, token files, impersonation and exec plugins
 *  (`client.authentication.k8s.io`).
 *  @throws OciError UNAVAILABLE: no such file, no such context, or a way to log in that is not
 *  listed above */
export async function readKubeconfig(env: NodeJS.ProcessEnv): Promise<ClusterAccess> {
  const { context, cluster, user } = await currentContext(env);
  const server = textOf(cluster['server']);
  if (server === undefined) throw unusable(`the context ${context} names no cluster with a server`);
  if (user['auth-provider'] !== undefined) throw unusable(`the context ${context} logs in by auth-provider, which is not supported`);
  if (cluster['proxy-url'] !== undefined) throw unusable(`the context ${context} has a proxy-url, which is not supported`);
  const plugin = user['exec'] === undefined ? undefined : createPlugin(fieldsOf(user['exec']), { env, cluster });
  const issued = await plugin?.();
  const pem = async (from: Fields, key: string): Promise<string | undefined> => {
    const data = textOf(from[`${key}-data`]);
    if (data !== undefined) return Buffer.from(data, 'base64').toString();
    const file = textOf(from[key]);
    return file === undefined ? undefined : readText(file);
  };
  const tls = {
    ca: await pem(cluster, 'certificate-authority'),
    cert: issued?.cert ?? (await pem(user, 'client-certificate')),
    key: issued?.key ?? (await pem(user, 'client-key')),
    servername: textOf(cluster['tls-server-name']),
    rejectUnauthorized: cluster['insecure-skip-tls-verify'] === true ? false : undefined,
  };
  return {
    server: server.replace(/\/+$/, ''),
    tls: Object.fromEntries(Object.entries(tls).filter(([, value]) => value !== undefined)),
    headers: async () => ({ ...impersonation(user), ...authorization(await tokenOf(user, plugin), user) }),
  };
}

interface Context {
  context: string;
  cluster: Fields;
  user: Fields;
}

/** If several files define a name, the first one wins, as with kubectl. */
async function currentContext(env: NodeJS.ProcessEnv): Promise<Context> {
  const named = (env['KUBECONFIG'] ?? '').split(delimiter).filter((path) => path !== '');
  const paths = named.length > 0 ? named : [join(homedir(), '.kube', 'config')];
  const files: { directory: string; content: Fields }[] = [];
  for (const path of paths) {
    const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined; // kubectl ignores missing files too
      throw unusable(`the kubeconfig ${path} cannot be read: ${error.message}`);
    });
    if (text !== undefined) files.push({ directory: dirname(path), content: fieldsOf(parseFile(path, text)) });
  }
  const find = (list: string, key: string, name: string | undefined): Fields => {
    for (const { directory, content } of files) {
      const entry = itemsOf(content[list]).find((item) => item['name'] === name);
      if (entry !== undefined) return withAbsolutePaths(fieldsOf(entry[key]), directory);
    }
    return {};
  };
  const context = files.map(({ content }) => textOf(content['current-context'])).find((name) => name !== undefined && name !== '');
  if (context === undefined) throw unusable('neither a service account nor a kubeconfig with a current context was found');
  const { cluster, user } = find('contexts', 'context', context);
  return { context, cluster: find('clusters', 'cluster', textOf(cluster)), user: find('users', 'user', textOf(user)) };
}

function parseFile(path: string, text: string): unknown {
  try {
    return parse(text);
  } catch (error) {
    throw unusable(`the kubeconfig ${path} is not YAML: ${(error as Error).message}`);
  }
}

const FILES = ['certificate-authority', 'client-certificate', 'client-key', 'tokenFile'];

/** Relative paths are relative to the file that holds them. */
function withAbsolutePaths(fields: Fields, directory: string): Fields {
  const paths = FILES.flatMap((key) => {
    const path = textOf(fields[key]);
    return path === undefined ? [] : [[key, resolve(directory, path)] as const];
  });
  return { ...fields, ...Object.fromEntries(paths) };
}

async function tokenOf(user: Fields, plugin: Plugin | undefined): Promise<string | undefined> {
  if (plugin !== undefined) return (await plugin()).token;
  const file = textOf(user['tokenFile']);
  return file === undefined ? textOf(user['token']) : (await readText(file)).trim();
}

function authorization(token: string | undefined, user: Fields): Record<string, string> {
  if (token !== undefined) return { authorization: `Bearer ${token}` };
  const [name, password] = [textOf(user['username']), textOf(user['password'])];
  if (name === undefined || password === undefined) return {};
  return { authorization: `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}` };
}

function impersonation(user: Fields): Record<string, string | string[]> {
  const [name, groups] = [textOf(user['as']), textsOf(user['as-groups'])];
  return name === undefined ? {} : { 'impersonate-user': name, ...(groups.length === 0 ? {} : { 'impersonate-group': groups }) };
}

interface Issued {
  token?: string;
  cert?: string;
  key?: string;
}
type Plugin = () => Promise<Issued>;

/** Runs an exec credential plugin, and again shortly before its credential expires. */
function createPlugin(exec: Fields, { env, cluster }: { env: NodeJS.ProcessEnv; cluster: Fields }): Plugin {
  const [command, apiVersion] = [textOf(exec['command']) ?? '', textOf(exec['apiVersion']) ?? ''];
  const additions = itemsOf(exec['env']).map(({ name, value }) => [textOf(name) ?? '', textOf(value) ?? ''] as const);
  const own = { server: cluster['server'], 'certificate-authority-data': cluster['certificate-authority-data'] };
  const spec = { interactive: false, ...(exec['provideClusterInfo'] === true ? { cluster: own } : {}) };
  const info = JSON.stringify({ apiVersion, kind: 'ExecCredential', spec });
  let known: Issued = {};
  let expires = 0;
  return async () => {
    if (Date.now() < expires - RENEW_BEFORE_MS) return known;
    const run = promisify(execFile);
    const { stdout } = await run(command, textsOf(exec['args']), {
      env: { ...env, ...Object.fromEntries(additions), KUBERNETES_EXEC_INFO: info },
      timeout: PLUGIN_TIMEOUT_MS,
    }).catch((error: unknown) => {
      throw unusable(`the login plugin ${command} failed: ${(error as Error).message.split('\n', 1)[0]}`);
    });
    const status = fieldsOf(fieldsOf(JSON.parse(stdout))['status']);
    const [token, cert, key] = ['token', 'clientCertificateData', 'clientKeyData'].map((name) => textOf(status[name]));
    known = { ...(token === undefined ? {} : { token }), ...(cert === undefined || key === undefined ? {} : { cert, key }) };
    const until = Date.parse(textOf(status['expirationTimestamp']) ?? '');
    expires = Number.isNaN(until) ? Infinity : until;
    return known;
  };
}

async function readText(path: string): Promise<string> {
  return readFile(path, 'utf8').catch((error: unknown) => {
    throw unusable((error as Error).message);
  });
}

function unusable(why: string): OciError {
  return new OciError('UNAVAILABLE', `no Kubernetes cluster: ${why}; ${INSTEAD}`);
}
