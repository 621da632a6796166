import { randomBytes } from 'node:crypto';
import { link, lstat, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const SECRET_BYTES = 32;

/** Reads the secret by which an agent and its successor recognise each other.
 *  @param file the configured file; by default one that the first agent of this user creates in a
 *  private temporary folder, which suits agents that share a file system
 *  @throws Error: the file cannot be read or is empty, or the folder is open to other users */
export async function readHandoverSecret(file: string | undefined): Promise<Buffer> {
  const secret = await readFile(file ?? (await ownSecretFile()));
  if (secret.length < SECRET_BYTES / 2) throw new Error(`${file ?? 'the handover secret'} holds fewer than ${SECRET_BYTES / 2} bytes`);
  return secret;
}

async function ownSecretFile(): Promise<string> {
  const user = process.getuid?.() ?? 0;
  const folder = join(tmpdir(), `kube-registry-agent-${user}`);
  await mkdir(folder, { mode: 0o700 }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error;
  });
  const found = await lstat(folder);
  if (!found.isDirectory() || found.uid !== user || (found.mode & 0o077) !== 0)
    throw new Error(`${folder} belongs to another user or is open to others: remove it`);
  const file = join(folder, 'handover-secret');
  const own = `${file}.${randomBytes(8).toString('hex')}`;
  await writeFile(own, randomBytes(SECRET_BYTES), { mode: 0o600 });
  // The first file wins: link(2) does not replace a file.
  await link(own, file).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error;
  });
  await rm(own, { force: true });
  return file;
}
