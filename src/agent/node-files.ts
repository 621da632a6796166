import { randomUUID } from 'node:crypto';
import { readFile, rename, rm, rmdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { makeDirectory } from '../io/make-directory.ts';
import type { Log } from '../telemetry/log.ts';

/** A file of the node's container runtime that the agent writes. */
export interface NodeFile {
  path: string;
  /** What follows the agent's mark. */
  content: string;
  /** Its folder goes with it, when nothing else is in there. */
  inOwnFolder: boolean;
}

export interface MirroredUpstream {
  url: string;
  hosts: readonly string[];
}

/** The files of one agent on its node. While it is replaced two agents share them: the newer one takes them over, and what the older one
 *  does not own any more it leaves. A file of somebody else is never touched; the log says so. */
export interface NodeFiles {
  readonly count: number;
  /** Writes what is missing or says something else. @throws Error: the directory cannot be written */
  write(): Promise<void>;
  /** Makes those that a former agent wrote this agent's own. @throws Error: the directory cannot be written */
  takeOver(): Promise<void>;
  /** Removes those of this agent, and the folders that are empty then. */
  remove(): Promise<void>;
  /** Removes those of any agent. */
  removeAll(): Promise<void>;
}

/** The first line of what an agent wrote: nothing else is ever touched. */
const MARK = '# Written by the kube-registry agent, which removes it when it goes.';

/** containerd's hosts.toml for each host of the upstreams: the agent first, the upstream itself when that fails. containerd puts
 *  the host into `?ns=`, so the paths carry no prefix (containerd, docs/hosts.md). */
export function hostsFiles(directory: string, upstreams: readonly MirroredUpstream[], agent: string): NodeFile[] {
  return upstreams.flatMap(({ url, hosts }) =>
    hosts.map((host) => ({
      path: join(directory, host.replaceAll('/', '_'), 'hosts.toml'),
      content: `server = "${url}"\n\n[host."${agent}"]\n  capabilities = ["pull", "resolve"]\n`,
      inOwnFolder: true,
    })),
  );
}

/** CRI-O's drop-in: since 1.35 it trusts no plain HTTP on loopback by itself (containers-registries.conf.d(5)). */
export function crioFile(directory: string, agent: string): NodeFile {
  return {
    path: join(directory, '50-kube-registry.conf'),
    content: `[[registry]]\nlocation = "${new URL(agent).host}"\ninsecure = true\n`,
    inOwnFolder: false,
  };
}

export function createNodeFiles(files: readonly NodeFile[], log: Log): NodeFiles {
  const owner = `# ${randomUUID()}`;
  const told = new Set<string>();

  async function put({ path, content }: NodeFile): Promise<void> {
    await makeDirectory(dirname(path));
    const temporary = `${path}.${randomUUID()}`;
    await writeFile(temporary, [MARK, owner, content].join('\n'));
    await rename(temporary, path);
    log.info({ path }, 'written');
  }

  async function removeWhere(isToGo: (there: Marked) => boolean): Promise<void> {
    for (const { path, inOwnFolder } of files) {
      const there = await read(path);
      if (there === undefined || !there.ours || !isToGo(there)) continue;
      await rm(path, { force: true });
      if (inOwnFolder) await rmdir(dirname(path)).catch(() => undefined); // other files are in it
      log.info({ path }, 'removed');
    }
  }

  return {
    count: files.length,
    async write() {
      for (const file of files) {
        const there = await read(file.path);
        if (there === undefined || (there.ours && there.content !== file.content)) await put(file);
        if (there?.ours !== false || told.has(file.path)) continue;
        told.add(file.path);
        log.warn(
          { path: file.path },
          'this file is not ours and stays as it is: its host is not mirrored; remove the file to have it mirrored',
        );
      }
    },
    async takeOver() {
      for (const file of files) {
        const there = await read(file.path);
        if (there?.ours === true && there.owner !== owner) await put(file);
      }
    },
    remove: () => removeWhere((there) => there.owner === owner),
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
