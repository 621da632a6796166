import { readFile, stat } from 'node:fs/promises';
import { OciError } from '../oci/error.ts';
import type { SecretSource } from './scalars.ts';

/** Returns a function that reads a secret's current value: the given value, or the current content
 *  of its file without the trailing newline. The file is read again when it changes, so that a
 *  rotated Secret needs no restart.
 *  @throws OciError UNAVAILABLE: the file cannot be read */
export function createSecret(source: SecretSource): () => Promise<string> {
  const { value, file } = source;
  if (file === undefined) return () => Promise.resolve(value ?? '');
  let known = { version: '', content: '' };
  return async () => {
    try {
      const { mtimeMs, ino, size } = await stat(file);
      const version = `${ino} ${mtimeMs} ${size}`;
      if (version !== known.version) known = { version, content: (await readFile(file, 'utf8')).replace(/\r?\n$/, '') };
      return known.content;
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException;
      throw new OciError('UNAVAILABLE', `the file ${file}, which holds a secret, cannot be read (${code})`, { cause });
    }
  };
}
