import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** Replaces a file at once: a program that starts meanwhile reads the former content or the new
 *  one. */
export async function replaceFile(path: string, content: string | Uint8Array, mode = 0o644): Promise<void> {
  const temporary = `${path}.${process.pid}.tmp`;
  await mkdir(join(path, '..'), { recursive: true });
  await writeFile(temporary, content, { mode });
  await rename(temporary, path);
}

/** Removes the files of former builds: all files of a directory but `wanted`. */
export async function removeOthers(directory: string, wanted: ReadonlySet<string>): Promise<void> {
  for (const file of await readdir(directory))
    if (!wanted.has(file) && !file.endsWith('.tmp')) await rm(join(directory, file), { force: true });
}
