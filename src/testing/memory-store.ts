import { resolveRange } from '../oci/range.ts';
import { createBody, readAll } from '../io/body.ts';
import { wrongLength } from '../store/failure.ts';
import { checkKey, checkPrefix } from '../store/keys.ts';
import type { Store, StoreSource } from '../store/store.ts';

/** Keeps everything in memory: for tests, and as the plainest reading of the contract. */
export function memory(): Store {
  const objects = new Map<string, { bytes: Uint8Array; modified: Date }>();
  return {
    async stat(key, { signal }) {
      signal.throwIfAborted();
      const found = objects.get(checkKey(key));
      return found && { size: found.bytes.length, modified: found.modified };
    },

    async read(key, { signal, range }) {
      signal.throwIfAborted();
      const found = objects.get(checkKey(key));
      if (found === undefined) return undefined;
      const { bytes, modified } = found;
      const size = bytes.length;
      const part = range === undefined ? undefined : resolveRange(range, size);
      const selected = part === undefined ? bytes : bytes.subarray(part.start, part.end + 1);
      return { size, modified, range: part, body: bytesBody(selected, signal) };
    },

    async write(key, source, { signal }) {
      signal.throwIfAborted();
      checkKey(key);
      objects.set(key, { bytes: await collect(source, signal), modified: new Date() });
    },

    async remove(key, { signal }) {
      signal.throwIfAborted();
      objects.delete(checkKey(key));
    },

    async *list(prefix, { signal, after }) {
      checkPrefix(prefix);
      for (const key of [...objects.keys()].sort()) {
        signal.throwIfAborted();
        const found = objects.get(key);
        if (found === undefined || !key.startsWith(prefix) || (after !== undefined && key <= after)) continue;
        yield { key, size: found.bytes.length, modified: found.modified };
      }
    },

    close: () => Promise.resolve(),
  };
}

/** All bytes of a source. @throws OciError SIZE_INVALID */
async function collect(source: StoreSource, signal: AbortSignal): Promise<Uint8Array> {
  try {
    const bytes = await readAll(await source.open({ signal }), source.size);
    if (bytes?.length !== source.size) throw wrongLength(source.size, bytes?.length ?? source.size + 1);
    return bytes;
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  }
}

function bytesBody(bytes: Uint8Array, signal: AbortSignal): AsyncIterable<Uint8Array> {
  let left: Uint8Array | undefined = bytes;
  return createBody(
    {
      async pull() {
        const chunk = left;
        left = undefined;
        return chunk === undefined || chunk.length === 0 ? undefined : chunk;
      },
      close: () => Promise.resolve(),
    },
    signal,
  );
}
