import { randomUUID } from 'node:crypto';
import { access, readFile, rename, rm, rmdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { makeDirectory } from '../io/make-directory.ts';
import type { Log } from '../telemetry/log.ts';
import { certificateLines } from './certificates.ts';

/** A file for the node's container runtime that the agent writes. */
export interface NodeFile {
  path: string;
  /** Returns what follows the agent's mark; undefined: the file is not needed now. @throws Error: a
   *  folder cannot be read */
  content: () => Promise<string | undefined>;
  /** The folder was created for this file, and is removed with it when it is empty. */
  inOwnFolder: boolean;
  /** Another path where the runtime would look for the file. A foreign file there takes precedence;
   *  one that an earlier agent wrote is removed. */
  otherPath?: string;
}

export interface MirroredUpstream {
  url: string;
  hosts: readonly string[];
}

/** The files of one agent on its node. During an upgrade two agents share them: the newer one takes
 *  them over, and the older one no longer touches them. Foreign files are never touched, and a
 *  warning names them. */
export interface NodeFiles {
  readonly count: number;
  /** Writes the files that are missing or differ. @throws Error: the directory cannot be written */
  write(): Promise<void>;
  /** Takes ownership of the files that a former agent wrote. @throws Error: the directory cannot be
   *  written */
  takeOver(): Promise<void>;
  /** Removes the files of this agent, and folders that are empty afterwards. */
  remove(): Promise<void>;
  /** Removes the files of all agents. */
  removeAll(): Promise<void>;
}

/** The first line of every file that an agent wrote. Files without it are never touched. */
const MARK = '# Written by the kube-registry agent, which removes it when it goes.';

/** The folder of a host in containerd's `config_path`: `HOST`, or `HOST_PORT_` (containerd,
 *  core/remotes/docker/config/hosts.go). */
export function hostFolder(host: string): string {
  return host.replaceAll('/', '_').replace(/:(\d+)$/, '_$1_');
}

/** containerd's hosts.toml for each host of the upstreams: the agent first, the upstream itself
 *  when the agent fails. containerd passes the host in `?ns=`, so the paths carry no prefix
 *  (containerd, docs/hosts.md). */
export function hostsFiles(directory: string, upstreams: readonly MirroredUpstream[], agent: string): NodeFile[] {
  return upstreams.flatMap(({ url, hosts }) => hosts.map((host) => hostsFile(directory, host, { url, agent })));
}

function hostsFile(directory: string, host: string, { url, agent }: { url: string; agent: string }): NodeFile {
  const [folder, plain] = [hostFolder(host), host.replaceAll('/', '_')];
  return {
    path: join(directory, folder, 'hosts.toml'),
    async content() {
      const own = await certificateLines(join(directory, folder));
      // A folder named HOST:PORT, Docker's layout, is not read if HOST_PORT_ exists.
      const certificates = own === '' && plain !== folder ? await certificateLines(join(directory, plain), `../${plain}/`) : own;
      return `server = "${url}"\n${certificates}\n[host."${agent}"]\n  capabilities = ["pull", "resolve"]\n`;
    },
    inOwnFolder: true,
    ...(plain === folder ? {} : { otherPath: join(directory, plain, 'hosts.toml') }),
  };
}

/** hosts.toml for the agent's own address, which rewritten images name. It is needed only if there
 *  is a `_default/hosts.toml`, which containerd would otherwise apply to that address too. */
export function ownHostsFile(directory: string, agent: string): NodeFile {
  return {
    path: join(directory, hostFolder(new URL(agent).host), 'hosts.toml'),
    async content() {
      const isThere = await access(join(directory, '_default', 'hosts.toml')).then(
        () => true,
        () => false,
      );
      return isThere ? `server = "${agent}"\n\n[host."${agent}"]\n  capabilities = ["pull", "resolve"]\n` : undefined;
    },
    inOwnFolder: true,
  };
}

/** containerd's hosts.toml for every host without one. Without a `server`, containerd falls back to
 *  the host itself. */
export function defaultHostsFile(directory: string, agent: string): NodeFile {
  return {
    path: join(directory, '_default', 'hosts.toml'),
    content: () => Promise.resolve(`[host."${agent}"]\n  capabilities = ["pull", "resolve"]\n`),
    inOwnFolder: true,
  };
}

/** CRI-O's drop-in: since 1.35 CRI-O does not trust plain HTTP on loopback by default
 *  (containers-registries.conf.d(5)). */
export function crioFile(directory: string, agent: string): NodeFile {
  const content = `[[registry]]\nlocation = "${new URL(agent).host}"\ninsecure = true\n`;
  return { path: join(directory, '50-kube-registry.conf'), content: () => Promise.resolve(content), inOwnFolder: false };
}

export function createNodeFiles(files: readonly NodeFile[], log: Log): NodeFiles {
  const owner = `# ${randomUUID()}`;
  const reported = new Set<string>();

  async function put(path: string, content: string): Promise<void> {
    await makeDirectory(dirname(path));
    const temporary = `${path}.${randomUUID()}`;
    await writeFile(temporary, [MARK, owner, content].join('\n'));
    await rename(temporary, path);
    log.info({ event: 'node-file-written', path }, 'wrote a file for the container runtime');
  }

  async function remove(path: string, inOwnFolder: boolean): Promise<void> {
    await rm(path, { force: true });
    if (inOwnFolder) await rmdir(dirname(path)).catch(() => undefined); // other files are in it
    log.info({ event: 'node-file-removed', path }, 'removed a file for the container runtime');
  }

  async function removeWhere(isRemoved: (found: Marked) => boolean): Promise<void> {
    for (const { path, otherPath, inOwnFolder } of files) {
      for (const place of otherPath === undefined ? [path] : [path, otherPath]) {
        const found = await read(place);
        if (found?.ours === true && isRemoved(found)) await remove(place, inOwnFolder);
      }
    }
  }

  /** @returns the path of a foreign file for the same purpose */
  async function writeFileOf({ path, otherPath, content, inOwnFolder }: NodeFile): Promise<string | undefined> {
    const other = otherPath === undefined ? undefined : await read(otherPath);
    if (other?.ours === false) return otherPath;
    const found = await read(path);
    if (found?.ours === false) return path;
    const wanted = await content();
    if (wanted === undefined) {
      if (found !== undefined) await remove(path, inOwnFolder);
      return undefined;
    }
    if (found?.content !== wanted) await put(path, wanted);
    if (other !== undefined && otherPath !== undefined) await remove(otherPath, inOwnFolder);
    return undefined;
  }

  return {
    count: files.length,
    async write() {
      for (const file of files) {
        const foreign = await writeFileOf(file);
        if (foreign === undefined || reported.has(foreign)) continue;
        reported.add(foreign);
        log.warn(
          { event: 'node-file-foreign', path: foreign },
          'another program wrote this hosts.toml, so its host is not mirrored; remove the file to mirror it',
        );
      }
    },
    async takeOver() {
      for (const { path, content } of files) {
        const found = await read(path);
        const wanted = found?.ours === true && found.owner !== owner ? await content() : undefined;
        if (wanted !== undefined) await put(path, wanted);
      }
    },
    remove: () => removeWhere((found) => found.owner === owner),
    removeAll: () => removeWhere(() => true),
  };
}

interface Marked {
  ours: boolean;
  owner: string | undefined;
  content: string;
}

async function read(path: string): Promise<Marked | undefined> {
  try {
    const [mark, owner, ...content] = (await readFile(path, 'utf8')).split('\n');
    return { ours: mark === MARK, owner, content: content.join('\n') };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
