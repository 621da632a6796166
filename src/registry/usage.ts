import type { Digest } from '../oci/digest.ts';
import type { Repository } from '../oci/reference.ts';
import { usedKey } from '../store/keys.ts';
import type { Records } from './records.ts';

export interface Usage {
  /** This image was pulled now. True: for the first time today, as far as this process knows. */
  mark(this: void, repository: Repository, digest: Digest): boolean;
}

/** Notes which images are pulled, once a day each: pruning goes by that (DESIGN promise 13). */
export function createUsage(records: Records): Usage {
  let day = '';
  const marked = new Set<string>();
  return {
    mark(repository, digest) {
      const now = new Date();
      const today = now.toISOString().slice(0, 10);
      if (today !== day) {
        day = today;
        marked.clear();
      }
      const key = usedKey(now, repository, digest);
      if (marked.has(key)) return false;
      marked.add(key);
      records.write(key, '');
      return true;
    },
  };
}
