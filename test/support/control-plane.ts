import { execFile, type PromiseWithChild } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { request } from 'node:https';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { debianTool, toolPath } from '../tools/tools.ts';
import { startService, type Service } from './process.ts';
import { freePort, temporaryDirectory } from './temporary.ts';

const run = promisify(execFile);

export interface ControlPlaneOptions {
  /** The path of a kube-apiserver of a later version; default: $KUBE_REGISTRY_KUBE_APISERVER, or
   *  else 1.34, as everything else is. */
  kubeApiServer?: string;
  /** Also runs the controllers with these names (`*`: all of them); default: none. */
  controllers?: readonly string[];
  /** Further flags of kube-apiserver. */
  apiServer?: readonly string[];
  /** Further flags of kube-controller-manager. */
  controllerManager?: readonly string[];
  scheduler?: boolean;
  /** Further users: lines of `token,name,uid,"groups"`. */
  users?: string;
  /** The command prefix that runs a command in another network namespace. */
  enter?: readonly string[];
}

export interface ControlPlane extends AsyncDisposable {
  /** https://127.0.0.1:PORT */
  url: string;
  /** An admin's. */
  kubeconfig: string;
  /** A kubeconfig of another user, of these groups. */
  kubeconfigOf(user: string, groups: readonly string[]): Promise<string>;
  /** `kubectl ARGS` as the admin; returns stdout. `input` is its stdin. @throws Error with
   *  stderr */
  kubectl: (args: readonly string[], input?: string | Uint8Array) => Promise<string>;
  /** The process of kube-apiserver. */
  apiServerPid(): number;
  /** Stops everything at once, as in a power failure. */
  stop(): Promise<void>;
  /** Starts again with the data in etcd. */
  start(): Promise<void>;
}

const USERS = 'admin-token,admin,admin,"system:masters"\n';

/** A real etcd and kube-apiserver on loopback: admission, RBAC and watches are real, but no node is
 *  there and no pod runs. */
export async function startControlPlane(options: ControlPlaneOptions = {}): Promise<ControlPlane> {
  const stack = new AsyncDisposableStack();
  const services: Service[] = [];
  const start: Start = async (command, args, ready) => {
    const [file = '', ...words] = [...(options.enter ?? []), command, ...args];
    const service = stack.use(await startService({ command: file, args: words, ...(ready === undefined ? {} : { ready }) }));
    services.push(service);
    return service;
  };
  try {
    const { path } = stack.use(await temporaryDirectory());
    const [port, kube] = [await freePort(), await toolPath('kube-all')];
    const url = `https://127.0.0.1:${port}`;
    const kubeconfig = await writeKubeconfig(join(path, 'admin.kubeconfig'), url, { token: 'admin-token' });
    const kubectl = (args: readonly string[], input: string | Uint8Array = ''): Promise<string> =>
      output([...(options.enter ?? []), kube, 'kubectl', '--kubeconfig', kubeconfig, ...args], input);

    const etcd = await startEtcd(start, join(path, 'etcd'));
    const keys = await writeKeys(path);
    const users = join(path, 'users.csv');
    await writeFile(users, USERS + (options.users ?? ''));
    const apiServerFlags = flags({
      'bind-address': '127.0.0.1',
      'secure-port': port,
      'cert-dir': join(path, 'apiserver'),
      'etcd-servers': etcd,
      'service-cluster-ip-range': '10.96.0.0/16',
      'advertise-address': '10.96.0.1',
      'endpoint-reconciler-type': 'none',
      'authorization-mode': 'Node,RBAC',
      'token-auth-file': users,
      'allow-privileged': true,
      'service-account-issuer': 'https://kubernetes.default.svc',
      'service-account-key-file': keys.public,
      'service-account-signing-key-file': keys.private,
    });
    // A kubectl costs far more than a request, but can be started in another network namespace.
    const asked = (): Promise<boolean> => kubectl(['get', '--raw', '/readyz']).then(Boolean, () => false);
    const ready = options.enter === undefined ? () => isReady(url) : asked;
    const own = options.kubeApiServer ?? process.env['KUBE_REGISTRY_KUBE_APISERVER'];
    const [apiServer, first] = own === undefined ? [kube, ['kube-apiserver']] : [own, []];
    const running = await start(apiServer, [...first, ...apiServerFlags, ...(options.apiServer ?? [])], ready);
    if (options.controllers !== undefined) {
      const controllerFlags = flags({
        kubeconfig,
        controllers: options.controllers.join(','),
        'service-account-private-key-file': keys.private,
        'use-service-account-credentials': true,
        'leader-elect': false,
        'secure-port': await freePort(),
        'cert-dir': join(path, 'controllers'),
      });
      await start(kube, ['kube-controller-manager', ...controllerFlags, ...(options.controllerManager ?? [])]);
    }
    if (options.scheduler === true) {
      await start(kube, ['kube-scheduler', ...flags({ kubeconfig, 'leader-elect': false, 'secure-port': await freePort() })]);
    }
    const owned = stack.move();
    return {
      url,
      kubeconfig,
      kubectl,
      apiServerPid: () => running.current().pid,
      async stop() {
        for (const service of services.toReversed()) await service.stop('SIGKILL');
      },
      async start() {
        for (const service of services) await service.start();
      },
      kubeconfigOf: (user, groups) =>
        writeKubeconfig(join(path, `${user.replaceAll(/\W/g, '-')}.kubeconfig`), url, { token: 'admin-token', user, groups }),
      [Symbol.asyncDispose]: () => owned.disposeAsync(),
    };
  } catch (error) {
    await stack.disposeAsync();
    throw error;
  }
}

type Start = (command: string, args: readonly string[], ready?: () => Promise<boolean>) => Promise<Service>;

/** The API server waits for it. */
async function startEtcd(start: Start, directory: string): Promise<string> {
  const url = `http://127.0.0.1:${await freePort()}`;
  const peer = `http://127.0.0.1:${await freePort()}`;
  const args = flags({
    'data-dir': directory,
    'unsafe-no-fsync': true,
    'listen-client-urls': url,
    'advertise-client-urls': url,
    'listen-peer-urls': peer,
    'initial-advertise-peer-urls': peer,
    'initial-cluster': `default=${peer}`,
  });
  await start(await debianTool('etcd'), args);
  return url;
}

function isReady(url: string): Promise<boolean> {
  const options = { rejectUnauthorized: false, headers: { authorization: 'Bearer admin-token' } };
  return new Promise((resolve) => {
    const asking = request(`${url}/readyz`, options, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    asking.once('error', () => resolve(false)).end();
  });
}

function flags(values: Record<string, string | number | boolean>): string[] {
  return Object.entries(values).map(([name, value]) => `--${name}=${value}`);
}

async function writeKeys(directory: string): Promise<{ public: string; private: string }> {
  const pair = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const paths = { public: join(directory, 'accounts.pub'), private: join(directory, 'accounts.key') };
  await writeFile(paths.public, pair.publicKey.export({ type: 'spki', format: 'pem' }));
  await writeFile(paths.private, pair.privateKey.export({ type: 'pkcs1', format: 'pem' }));
  return paths;
}

interface Identity {
  token: string;
  /** The user that the token's owner impersonates. */
  user?: string;
  groups?: readonly string[];
}

async function writeKubeconfig(path: string, server: string, { token, user, groups }: Identity): Promise<string> {
  const impersonation = user === undefined ? {} : { as: user, 'as-groups': groups };
  const content = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'test', cluster: { server, 'insecure-skip-tls-verify': true } }],
    users: [{ name: 'test', user: { token, ...impersonation } }],
    contexts: [{ name: 'test', context: { cluster: 'test', user: 'test' } }],
    'current-context': 'test',
  };
  await mkdir(join(path, '..'), { recursive: true });
  await writeFile(path, JSON.stringify(content));
  return path;
}

/** Runs a command again if an API server did not get to its connection within ten seconds, which is
 *  kubectl's limit: it has sent no request then. */
async function output([file = '', ...args]: readonly string[], input: string | Uint8Array, tries = 5): Promise<string> {
  const child: PromiseWithChild<{ stdout: string }> = run(file, args, { maxBuffer: 64 * 1024 * 1024 });
  child.child.stdin?.end(input);
  try {
    return (await child).stdout;
  } catch (error) {
    if (tries === 1 || !(error as { stderr: string }).stderr.includes('TLS handshake timeout')) throw error;
    return output([file, ...args], input, tries - 1);
  }
}
