import type { Digest } from '../oci/digest.ts';
import type { Repository } from '../oci/reference.ts';
import { usedKey } from '../store/keys.ts';
import type { RecordStore } from './record-store.ts';

export interface Usage {
  /** Records that this image was pulled today. True: for the first time today, as far as this
   *  process knows. */
  mark(this: void, repository: Repository, digest: Digest): boolean;
}

/** Milliseconds; days are those of UTC. */
const DAY_MS = 86_400_000;
/** Images that are remembered as marked today: about 200 bytes each. */
const MAX_MARKED = 50_000;

/** Records once a day for each image that it was pulled; pruning relies on that (promise 13). */
export function createUsage(records: RecordStore): Usage {
  let day = 0;
  /** By repository: a key of both would have to be put together and hashed for each request. */
  const marked = new Map<Repository, Set<Digest>>();
  let count = 0;

  function forget(): void {
    marked.clear();
    count = 0;
  }

  return {
    mark(repository, digest) {
      const now = Date.now();
      const today = Math.floor(now / DAY_MS);
      if (today !== day) {
        day = today;
        forget();
      }
      if (marked.get(repository)?.has(digest) === true) return false;
      if (count >= MAX_MARKED) forget(); // images may then be marked twice, which is harmless
      const digests = marked.get(repository) ?? new Set();
      marked.set(repository, digests.add(digest));
      count++;
      records.mark(usedKey(new Date(now), repository, digest));
      return true;
    },
  };
}
