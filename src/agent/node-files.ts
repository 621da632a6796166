import { mkdir, readFile, rename, rm, rmdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Log } from '../telemetry/log.ts';

/** A file of the node's container runtime that the agent writes. */
export interface NodeFile {
  path: string;
  content: string;
}

export interface MirroredUpstream {
  url: string;
  hosts: readonly string[];
}

/** The first line of what the agent wrote: nothing else is ever touched. */
const MARK = '# Written by the kube-registry agent, which removes it when it goes.';

/** containerd's hosts.toml for each host of the upstreams: the agent first, the upstream itself when that fails. containerd puts
 *  the host into `?ns=`, so the paths carry no prefix (containerd, docs/hosts.md). */
export function hostsFiles(directory: string, upstreams: readonly MirroredUpstream[], agent: string): NodeFile[] {
  return upstreams.flatMap(({ url, hosts }) =>
    hosts.map((host) => ({
      path: join(directory, host, 'hosts.toml'),
      content: `${MARK}\nserver = "${url}"\n\n[host."${agent}"]\n  capabilities = ["pull", "resolve"]\n`,
    })),
  );
}

/** CRI-O's drop-in: since 1.35 it trusts no plain HTTP on loopback by itself (containers-registries.conf.d(5)). */
export function crioFile(directory: string, agent: string): NodeFile {
  return {
    path: join(directory, '50-kube-registry.conf'),
    content: `${MARK}\n[[registry]]\nlocation = "${new URL(agent).host}"\ninsecure = true\n`,
  };
}

/** Writes what is missing or of an older agent; a file of somebody else stays, and the log says so.
 *  @throws Error: the directory cannot be written */
export async function writeNodeFiles(files: readonly NodeFile[], log: Log): Promise<void> {
  for (const { path, content } of files) {
    const there = await readOrNothing(path);
    if (there === content) continue;
    if (there !== undefined && !isOurs(there)) {
      log.warn({ path }, 'this file is not ours and stays as it is: its host is not mirrored; remove it to have it mirrored');
      continue;
    }
    await mkdir(dirname(path), { recursive: true });
    await writeFile(`${path}.new`, content);
    await rename(`${path}.new`, path);
    log.info({ path }, 'written');
  }
}

/** Removes what an agent wrote, and the folders that are empty then. */
export async function removeNodeFiles(files: readonly NodeFile[], log: Log): Promise<void> {
  for (const { path } of files) {
    const there = await readOrNothing(path);
    if (there === undefined || !isOurs(there)) continue;
    await rm(path, { force: true });
    await rmdir(dirname(path)).catch(() => undefined); // other files are in it
    log.info({ path }, 'removed');
  }
}

function isOurs(content: string): boolean {
  return content.startsWith(MARK);
}

async function readOrNothing(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
