import { readdir } from 'node:fs/promises';

/** The root lines of a hosts.toml that name the certificates in `folder`, or '' if there are none.
 *
 *  Without a hosts.toml containerd takes `*.crt` there for CA certificates, and `*.cert` with
 *  `*.key` for client certificates, as Docker does; with one it reads only what the file names
 *  (containerd, core/remotes/docker/config/hosts.go).
 *  @param prefix put before each name: the path from the hosts.toml to `folder`
 *  @throws Error: the folder cannot be read */
export async function certificateLines(folder: string, prefix = ''): Promise<string> {
  const names = (await filesIn(folder)).toSorted((one, other) => (one < other ? -1 : 1));
  const authorities = names.filter((name) => name.endsWith('.crt')).map((name) => JSON.stringify(prefix + name));
  const clients = names
    .filter((name) => name.endsWith('.cert'))
    .map((name) => {
      const key = `${name.slice(0, -'.cert'.length)}.key`;
      const [certificate, own] = [JSON.stringify(prefix + name), JSON.stringify(prefix + key)];
      return names.includes(key) ? `[${certificate}, ${own}]` : certificate; // a single file holds both
    });
  return [
    ...(authorities.length === 0 ? [] : [`ca = [${authorities.join(', ')}]\n`]),
    ...(clients.length === 0 ? [] : [`client = [${clients.join(', ')}]\n`]),
  ].join('');
}

async function filesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return [];
    throw error;
  }
}
