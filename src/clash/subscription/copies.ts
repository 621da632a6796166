import { chmod, readdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { makeDirectory } from '../../io/make-directory.ts';
import type { Content } from './content.ts';
import { isFields, type Fields } from '../../io/untrusted.ts';
import type { Fetched } from './feed.ts';
import type { UserInfo } from './userinfo.ts';

/** A subscription as it was fetched last. The URL is not in it. */
export interface Copy extends Fetched {
  content: Content;
  userInfo: UserInfo;
  /** The version of mihomo that reads each of its entries. */
  vettedBy?: string;
}

/** mihomo's directory: what it runs with, and what was good last. All of it is for this user only: it is full of passwords. */
export interface Copies {
  directory: string;
  /** Absolute. */
  path(name: string): string;
  /** A JSON document; undefined: not there, or unreadable. */
  read(name: string): Promise<Fields | undefined>;
  write(name: string, content: string | Uint8Array): Promise<void>;
  move(from: string, to: string): Promise<void>;
  remove(name: string): Promise<void>;
  readCopy(subscription: string): Promise<Copy | undefined>;
  writeCopy(subscription: string, copy: Copy): Promise<void>;
  /** Removes the copies of all other subscriptions. */
  keepCopies(subscriptions: readonly string[]): Promise<void>;
  /** Files of providers that were fetched before: paths by the resource's key. */
  resources(): Promise<Map<string, string>>;
  /** Removes every file of `providers/` but these, and those that have just been written. */
  keepProviders(paths: ReadonlySet<string>): Promise<void>;
}

const RESOURCE = /^[0-9a-f]{16}-[0-9a-f]{16}(?:\.mrs)?$/;
const RUN = /^run-\d+\.json$/;
/** Milliseconds. */
const YOUNG = 600_000;
const GEO_FILES = ['geoip.dat', 'geosite.dat', 'country.mmdb', 'ASN.mmdb'];

/** Opens the directory, and puts the geo files into it that are shipped with this program: mihomo looks for them there, and
 *  would download what it misses.
 *  @throws Error (EACCES …): it cannot be made or written */
export async function openCopies(directory: string, geodata: string): Promise<Copies> {
  await makeDirectory(join(directory, 'subscriptions'));
  await makeDirectory(join(directory, 'providers'));
  await chmod(directory, 0o700).catch(() => undefined); // a volume's own, which others cannot reach anyway
  const shipped = new Set(await readdir(geodata).catch(() => []));
  for (const file of GEO_FILES.filter((name) => shipped.has(name))) {
    await rm(join(directory, file), { force: true });
    await symlink(join(geodata, file), join(directory, file));
  }
  const path = (name: string) => join(directory, name);
  for (const file of await readdir(directory)) if (RUN.test(file)) await rm(path(file), { force: true }); // of a killed program
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
      return undefined; // never written, or cut by a crash of the machine: fetched anew
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
        if (!paths.has(`providers/${file}`) && (await stat(own)).mtimeMs < Date.now() - YOUNG) await rm(own, { force: true });
      }
    },
  };
}
