import type { Digest } from '../oci/digest.ts';
import type { Repository, Tag } from '../oci/reference.ts';
import { bytesSource, type Store } from '../store/store.ts';
import { parsePinKey, PINS, pinKey } from '../store/keys.ts';

/** Images that users have pinned in the console: pruning keeps them. All replicas share the
 *  pins. */
export interface Pins {
  /** Whether the image is pinned under its tag, or by its digest. */
  has(this: void, image: { repository: Repository; tag: string | undefined; digest: Digest }): boolean;
  /** Reads the pins again unless that was done recently. @throws OciError UNAVAILABLE: only if they
   *  have never been read */
  refresh(this: void, signal: AbortSignal): Promise<void>;
  /** @throws OciError UNAVAILABLE */
  add(this: void, pin: Pin, user: string, signal: AbortSignal): Promise<void>;
  remove(this: void, pin: Pin, signal: AbortSignal): Promise<void>;
  /** A number that changes with every change of the pins. */
  version(this: void): number;
}

export interface Pin {
  repository: Repository;
  reference: Tag | Digest;
}

const REREAD_AFTER_MS = 5000;

export function createPins(store: Store): Pins {
  let names = new Set<string>();
  let version = 0;
  let readAt = -Infinity;

  async function read(signal: AbortSignal): Promise<void> {
    const found = await readPins(store, signal);
    if (found.size !== names.size || [...found].some((name) => !names.has(name))) version++;
    names = found;
    readAt = performance.now();
  }

  return {
    has: ({ repository, tag, digest }) => names.has(`${repository}@${digest}`) || (tag !== undefined && names.has(`${repository}:${tag}`)),
    version: () => version,
    async refresh(signal) {
      if (performance.now() - readAt < REREAD_AFTER_MS) return;
      try {
        await read(signal);
      } catch (error) {
        if (readAt === -Infinity) throw error;
      }
    },
    async add({ repository, reference }, user, signal) {
      const record = { by: user, at: new Date().toISOString() };
      await store.write(pinKey(repository, reference), bytesSource(Buffer.from(JSON.stringify(record))), { signal });
      await read(signal);
    },
    async remove({ repository, reference }, signal) {
      await store.remove(pinKey(repository, reference), { signal });
      await read(signal);
    },
  };
}

/** The pinned images: `repository:tag` and `repository@digest`. @throws OciError UNAVAILABLE */
export async function readPins(store: Store, signal: AbortSignal): Promise<Set<string>> {
  const names = new Set<string>();
  for await (const { key } of store.list(PINS, { signal })) {
    const name = parsePinKey(key);
    if (name !== undefined) names.add(name);
  }
  return names;
}
