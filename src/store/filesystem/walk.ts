import { absentAsUndefined } from '../../io/absent.ts';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { isKeySegment } from '../keys.ts';
import type { StoredObject } from '../store.ts';

interface Walk {
  root: string;
  prefix: string;
  after: string | undefined;
  signal: AbortSignal;
}

/** Lists the files below `root` as keys, in order. It reads one directory at a time, and skips
 *  those outside `prefix` or before `after`. */
export function walk(options: Walk): AsyncIterable<StoredObject & { key: string }> {
  const { prefix } = options;
  return walkFrom(prefix.slice(0, prefix.lastIndexOf('/') + 1), options);
}

async function* walkFrom(directory: string, options: Walk): AsyncIterable<StoredObject & { key: string }> {
  const { root, signal } = options;
  const keys = await keysIn(directory, options);
  for (let at = 0; at < keys.length;) {
    const key = keys[at] ?? '';
    if (key.endsWith('/')) {
      signal.throwIfAborted();
      yield* walkFrom(key, options);
      at++;
      continue;
    }
    let end = at + 1;
    while (end < keys.length && end < at + STATS_AT_ONCE && keys[end]?.endsWith('/') === false) end++;
    const files = keys.slice(at, end);
    const found = await Promise.all(files.map((file) => absentAsUndefined(stat(join(root, file)))));
    for (const [index, key] of files.entries()) {
      signal.throwIfAborted();
      const one = found[index];
      if (one !== undefined) yield { key, size: one.size, modified: one.mtime };
    }
    at = end;
  }
}

/** Enough to keep Node's file threads busy. */
const STATS_AT_ONCE = 16;

/** A directory's files and directories. Directories end with a slash, so that they sort as the keys
 *  below them do. */
async function keysIn(directory: string, { root, prefix, after }: Walk): Promise<string[]> {
  const entries = (await absentAsUndefined(readdir(join(root, directory), { withFileTypes: true }))) ?? [];
  const keys: string[] = [];
  for (const entry of entries) {
    // A volume holds other entries too: lost+found, and the store's own .tmp.
    if (!isKeySegment(entry.name)) continue;
    if (entry.isDirectory()) {
      const key = `${directory}${entry.name}/`;
      const within = key.startsWith(prefix) || prefix.startsWith(key);
      if (within && (after === undefined || key > after || after.startsWith(key))) keys.push(key);
    } else if (entry.isFile()) {
      const key = `${directory}${entry.name}`;
      if (key.startsWith(prefix) && (after === undefined || key > after)) keys.push(key);
    }
  }
  return keys.sort();
}
