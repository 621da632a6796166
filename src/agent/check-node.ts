import { access, constants, glob, readFile } from 'node:fs/promises';
import { dirname, isAbsolute, join } from 'node:path';
import { makeDirectory } from '../io/make-directory.ts';

/** What keeps the agent from writing into a directory of the node, and what to do about it; undefined: nothing. */
export async function checkWritable(directory: string): Promise<string | undefined> {
  try {
    await makeDirectory(directory);
    await access(directory, constants.W_OK);
    return undefined;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return `${directory} cannot be written (${code}): mount the node's directory there, writable, and run the agent as a user who may write it`;
  }
}

/** Why containerd does not read `directory`, as far as its configuration, the config.toml beside it, is to be seen from here; and what to
 *  do about it. undefined: it does, or its configuration is not to be seen. */
export async function checkContainerd(directory: string): Promise<string | undefined> {
  const folder = dirname(directory);
  const main = await readOrNothing(join(folder, 'config.toml'));
  if (main === undefined) return undefined;
  const texts = [main, ...(await readImports(folder, main))];
  const paths = texts.flatMap((text) => [...text.matchAll(CONFIG_PATH)].map(([, , path = '']) => path));
  const read = paths.flatMap((path) => path.split(':')).filter((path) => path !== '');
  if (read.map(withoutSlash).includes(withoutSlash(directory))) return undefined;
  const fix = `set config_path = "${directory}" under [plugins."io.containerd.grpc.v1.cri".registry] (containerd 2: [plugins."io.containerd.cri.v1.images".registry]) in ${join(folder, 'config.toml')}, and restart containerd`;
  if (read.length > 0)
    return `containerd reads hosts.toml files in ${read.join(' and ')}, not in ${directory}: ${fix}, or set agent.mirror.directory`;
  const since = paths.length > 0 ? 'containerd reads no hosts.toml files' : 'containerd before 2.2 reads no hosts.toml files by itself';
  return `${since}, so nothing comes through the agent: ${fix}`;
}

const CONFIG_PATH = /^[ \t]*config_path[ \t]*=[ \t]*(["'])(.*?)\1/gm;
const IMPORTS = /^[ \t]*imports[ \t]*=[ \t]*\[([^\]]*)\]/m;

/** The files that `main` imports, of those that lie beside it. */
async function readImports(folder: string, main: string): Promise<string[]> {
  const patterns = [...(IMPORTS.exec(main)?.[1] ?? '').matchAll(/["']([^"']+)["']/g)].map(([, pattern = '']) => pattern);
  const texts: string[] = [];
  for (const pattern of patterns) {
    for await (const path of glob(isAbsolute(pattern) ? pattern : join(folder, pattern))) texts.push((await readOrNothing(path)) ?? '');
  }
  return texts;
}

async function readOrNothing(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (['ENOENT', 'EACCES', 'EISDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw error;
  }
}

function withoutSlash(path: string): string {
  return path.replace(/\/+$/, '');
}
