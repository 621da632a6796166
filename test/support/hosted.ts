import { hash } from '@node-rs/bcrypt';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { startRegistry, type ServingProgram } from './program.ts';
import { temporaryDirectory } from './temporary.ts';
import { startVersitygw } from './versitygw.ts';

export const USER = { username: 'ci', password: 'secret' };
export const AUTHORIZATION = `Basic ${Buffer.from(`${USER.username}:${USER.password}`).toString('base64')}`;

export interface HostedWorld extends AsyncDisposable {
  registries: ServingProgram[];
  /** The first of them. */
  registry: ServingProgram;
  /** Contains the store, files of the test, and the htpasswd file `users`. */
  directory: string;
  /** The configuration of one more registry over the same store, without addresses. */
  configuration: Record<string, unknown>;
}

export interface HostedWorldOptions {
  /** `registry.hosted.local`; by default `ci` may push and delete everything, and anyone may
   *  pull. */
  local?: Record<string, unknown>;
  /** `registry.storage`; by default a directory. */
  storage?: Record<string, unknown>;
  /** Over one store. */
  replicas?: number;
  /** What stands before the command, for example to give it one core. */
  enter?: readonly string[];
  more?: Record<string, unknown>;
}

/** Registries with hosted repositories `local/…`. */
export async function startHosted(options: HostedWorldOptions = {}): Promise<HostedWorld> {
  const folder = await temporaryDirectory();
  const users = join(folder.path, 'users');
  await writeFile(users, `${USER.username}:${await hash(USER.password, 5)}\nother:${await hash('other', 5)}\n`);
  const everything = [{ users: [USER.username] }];
  const configuration = {
    storage: options.storage ?? { filesystem: { directory: join(folder.path, 'data') } },
    users,
    hosted: { local: options.local ?? { push: everything, delete: everything } },
    ...options.more,
  };
  const registries: ServingProgram[] = [];
  try {
    for (let replica = 0; replica < (options.replicas ?? 1); replica++) {
      const local = { directory: join(folder.path, `local-${replica}`) };
      registries.push(await startRegistry({ local, ...configuration }, options.enter === undefined ? {} : { enter: options.enter }));
    }
  } catch (error) {
    for (const registry of registries) await registry[Symbol.asyncDispose]();
    await folder[Symbol.asyncDispose]();
    throw error;
  }
  const [registry] = registries;
  if (registry === undefined) throw new Error('no registry was asked for');
  return {
    registries,
    registry,
    directory: folder.path,
    configuration,
    async [Symbol.asyncDispose]() {
      for (const one of registries) await one[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

export interface TestStorage extends AsyncDisposable {
  /** Where the objects of the S3 server lie as files. */
  directory?: string;
  options: Pick<HostedWorldOptions, 'storage'>;
}

/** A directory for this test, or an S3 server. */
export async function startStorage(kind: 'filesystem' | 's3'): Promise<TestStorage> {
  if (kind === 'filesystem') return { options: {}, [Symbol.asyncDispose]: () => Promise.resolve() };
  const server = await startVersitygw();
  const { endpoint, bucket, region, accessKeyId, secretAccessKey } = server;
  return {
    directory: server.directory,
    options: { storage: { s3: { endpoint, bucket, region, accessKeyId, secretAccessKey } } },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}
