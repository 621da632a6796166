import { chmod, readdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { makeDirectory } from '../../io/make-directory.ts';
import type { Content } from './content.ts';
import { isFields, type Fields } from '../../io/untrusted.ts';
import type { Fetched } from './feed.ts';
import type { UserInfo } from './userinfo.ts';

/** The last fetched content of a subscription, without its URL. */
export interface Copy extends Fetched {
  content: Content;
  userInfo: UserInfo;
  /** The version of mihomo that has accepted the entries. */
  vettedBy?: string;
}

/** mihomo's directory: its config, the last good config and fetched files. They contain
 *  passwords, so only this user may read it. */
export interface Copies {
  directory: string;
  /** @returns the absolute path */
  path(name: string): string;
  /** Reads a JSON document. @returns undefined if it is missing or unreadable */
  read(name: string): Promise<Fields | undefined>;
  write(name: string, content: string | Uint8Array): Promise<void>;
  move(from: string, to: string): Promise<void>;
  remove(name: string): Promise<void>;
  readCopy(subscription: string): Promise<Copy | undefined>;
  writeCopy(subscription: string, copy: Copy): Promise<void>;
  /** Removes the copies of all other subscriptions. */
  keepCopies(subscriptions: readonly string[]): Promise<void>;
  /** @returns the paths of the provider files that were fetched before, by the resource's key */
  resources(): Promise<Map<string, string>>;
  /** Removes the files in `providers/`, except `paths` and files written in the last ten minutes.
   */
  keepProviders(paths: ReadonlySet<string>): Promise<void>;
}

const RESOURCE = /^[0-9a-f]{16}-[0-9a-f]{16}(?:\.mrs)?$/;
const RUN = /^run-\d+\.json$/;
const YOUNG_MS = 600_000;
const GEO_FILES = ['geoip.dat', 'geosite.dat', 'country.mmdb', 'ASN.mmdb'];

/** Opens the directory, and links the image's geo files into it: mihomo looks for them there, and
 *  downloads missing ones.
 *  @throws Error (EACCES …): the directory cannot be created or written */
export async function openCopies(directory: string, geodata: string): Promise<Copies> {
  await makeDirectory(join(directory, 'subscriptions'));
  await makeDirectory(join(directory, 'providers'));
  await chmod(directory, 0o700).catch(() => undefined); // a mounted volume may belong to another user; other processes cannot reach it anyway
  const shipped = new Set(await readdir(geodata).catch(() => []));
  for (const file of GEO_FILES.filter((name) => shipped.has(name))) {
    await rm(join(directory, file), { force: true });
    await symlink(join(geodata, file), join(directory, file));
  }
  const path = (name: string) => join(directory, name);
  for (const file of await readdir(directory)) if (RUN.test(file)) await rm(path(file), { force: true }); // left by a killed process
  let count = 0;

  async function write(name: string, content: string | Uint8Array): Promise<void> {
    const temporary = `${path(name)}.${++count}.tmp`;
    await makeDirectory(dirname(temporary));
    await writeFile(temporary, content, { mode: 0o600, flush: true });
    await rename(temporary, path(name));
  }

  async function read(name: string): Promise<Fields | undefined> {
    try {
      const document: unknown = JSON.parse(await readFile(path(name), 'utf8'));
      return isFields(document) ? document : undefined;
    } catch {
      return undefined; // never written, or truncated by a crash of the machine: it is fetched again
    }
  }

  return {
    directory,
    path,
    read,
    write,
    move: (from, to) => rename(path(from), path(to)),
    remove: (name) => rm(path(name), { force: true }),
    readCopy: async (subscription) => (await read(`subscriptions/${subscription}.json`)) as Copy | undefined,
    writeCopy: (subscription, copy) => write(`subscriptions/${subscription}.json`, JSON.stringify(copy)),
    async keepCopies(subscriptions) {
      for (const file of await readdir(path('subscriptions'))) {
        if (!subscriptions.some((name) => file === `${name}.json`)) await rm(path(`subscriptions/${file}`), { force: true });
      }
    },
    async resources() {
      const files = (await readdir(path('providers'))).filter((file) => RESOURCE.test(file));
      const dated = await Promise.all(files.map(async (file) => ({ file, at: (await stat(path(`providers/${file}`))).mtimeMs })));
      dated.sort((one, other) => one.at - other.at); // the newest of a key is the last, and stays
      return new Map(dated.map(({ file }) => [file.slice(0, 16), `providers/${file}`]));
    },
    async keepProviders(paths) {
      for (const file of await readdir(path('providers'))) {
        const own = path(`providers/${file}`);
        if (!paths.has(`providers/${file}`) && (await stat(own)).mtimeMs < Date.now() - YOUNG_MS) await rm(own, { force: true });
      }
    },
  };
}
