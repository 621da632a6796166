import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { hash } from '@node-rs/bcrypt';
import { toolPath } from '../tools/tools.ts';
import { accepts, startProcess, type RunningProcess } from './process.ts';
import { freePort, temporaryDirectory } from './temporary.ts';
import type { TokenServer } from './token-server.ts';
import type { Versitygw } from './versitygw.ts';

export interface DistributionOptions {
  /** Where it keeps its images; default: a temporary folder. */
  directory?: string;
  /** Keeps them in S3 instead. */
  s3?: Versitygw;
  /** Makes it a pull-through cache of this registry (a URL). */
  proxyOf?: string;
  /** Passwords by user name (basic authentication), or a token server to trust. */
  auth?: { htpasswd: Record<string, string> } | { token: TokenServer };
  tls?: { certificate: string; key: string };
  /** Where to listen; default 127.0.0.1. */
  host?: string;
  port?: number;
  /** Laid over the configuration, by top-level key. */
  configuration?: Record<string, unknown>;
  /** Laid over the environment. */
  env?: NodeJS.ProcessEnv;
  /** What stands before the command, for example to give it one core. */
  enter?: readonly string[];
}

export interface LoggedRequest {
  method: string;
  /** Path and query. */
  path: string;
  status: number;
  /** Length of the body that was sent. */
  bytes: number;
}

export interface Distribution extends AsyncDisposable {
  /** http://127.0.0.1:PORT */
  url: string;
  /** 127.0.0.1:PORT, as image names say it. */
  host: string;
  pid(): number;
  /** Its responses so far, in the order in which they ended. */
  requests(): LoggedRequest[];
  stop(): Promise<void>;
  /** On the same port, with the same content. */
  start(): Promise<void>;
  memory: RunningProcess['memory'];
}

const ACCESS_LINE = /"([A-Z]+) (\S+) HTTP\/[\d.]+" (\d+) (\d+)/g;

/** The Distribution project's registry, v3: the upstream of most tests. */
export async function startDistribution(options: DistributionOptions = {}): Promise<Distribution> {
  const directory = await temporaryDirectory();
  const address = `${options.host ?? '127.0.0.1'}:${options.port ?? (await freePort())}`;
  const url = `${options.tls === undefined ? 'http' : 'https'}://${address}`;
  const file = join(directory.path, 'config.json'); // JSON is YAML
  await writeFile(file, JSON.stringify(await configuration(options, address, directory.path)));
  const command = options.s3 === undefined ? await toolPath('registry') : await toolPath('registry-s3');
  let past = '';
  let child: RunningProcess | undefined;

  async function start(): Promise<void> {
    const [program, ...args] = [...(options.enter ?? []), command, 'serve', file];
    child ??= await startProcess({
      command: program ?? command,
      args,
      env: { ...process.env, ...options.env },
      ready: () => accepts(address),
    });
  }
  async function stop(): Promise<void> {
    await child?.stop('SIGKILL');
    past += child?.output() ?? '';
    child = undefined;
  }
  await start();
  return {
    url,
    host: address,
    start,
    stop,
    pid: () => child?.pid ?? 0,
    memory: () => child?.memory() ?? Promise.reject(new Error('the registry is stopped')),
    requests: () =>
      [...`${past}${child?.output() ?? ''}`.matchAll(ACCESS_LINE)].map(([, method = '', path = '', status, bytes]) => ({
        method,
        path,
        status: Number(status),
        bytes: Number(bytes),
      })),
    async [Symbol.asyncDispose]() {
      await stop();
      await directory[Symbol.asyncDispose]();
    },
  };
}

async function configuration(options: DistributionOptions, address: string, directory: string): Promise<Record<string, unknown>> {
  const { s3, proxyOf, tls } = options;
  return {
    version: '0.1',
    log: { level: 'warn', accesslog: { disabled: false } },
    storage: {
      ...(s3 === undefined
        ? { filesystem: { rootdirectory: options.directory ?? join(directory, 'data'), maxthreads: 100 } }
        : { s3: storageS3(s3), redirect: { disable: true } }),
      cache: { blobdescriptor: 'inmemory' },
      delete: { enabled: true },
    },
    http: { addr: address, secret: 'test', ...(tls === undefined ? {} : { tls: { certificate: tls.certificate, key: tls.key } }) },
    ...(proxyOf === undefined ? {} : { proxy: { remoteurl: proxyOf } }),
    ...(options.auth === undefined ? {} : { auth: await authentication(options.auth, directory) }),
    ...options.configuration,
  };
}

function storageS3(s3: Versitygw): Record<string, unknown> {
  return {
    regionendpoint: s3.endpoint,
    region: s3.region,
    bucket: s3.bucket,
    accesskey: s3.accessKeyId,
    secretkey: s3.secretAccessKey,
    forcepathstyle: true,
    secure: false,
    rootdirectory: '/distribution',
  };
}

async function authentication(auth: NonNullable<DistributionOptions['auth']>, directory: string): Promise<Record<string, unknown>> {
  if ('token' in auth) {
    const jwks = join(directory, 'keys.json');
    await writeFile(jwks, auth.token.keys);
    const { realm, service, issuer } = auth.token;
    return { token: { realm, service, issuer, jwks, signingalgorithms: ['ES256'] } };
  }
  const path = join(directory, 'htpasswd');
  const lines = await Promise.all(Object.entries(auth.htpasswd).map(async ([user, password]) => `${user}:${await hash(password, 4)}`));
  await writeFile(path, `${lines.join('\n')}\n`);
  return { htpasswd: { realm: 'test', path } };
}
