import type { Descriptor } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import type { Repository } from '../oci/reference.ts';
import { memberKey } from '../store/keys.ts';
import { createLru } from './lru.ts';
import type { Records } from './records.ts';

/** Which repository may serve which digest: it may when upstream has once given it under that name (DESIGN promise 12). */
export interface Membership {
  find(repository: Repository, digest: Digest, signal: AbortSignal): Promise<Descriptor | undefined>;
  add(repository: Repository, descriptor: Descriptor): void;
}

const IN_MEMORY = 50_000;

export function createMembership(records: Records): Membership {
  const known = createLru<Descriptor>(IN_MEMORY);
  return {
    async find(repository, digest, signal) {
      const key = memberKey(repository, digest);
      const remembered = known.get(key);
      if (remembered !== undefined) return remembered;
      const record = (await records.read(key, signal)) as { mediaType?: unknown; size?: unknown } | undefined;
      if (typeof record?.mediaType !== 'string' || typeof record.size !== 'number') return undefined;
      const descriptor = { digest, mediaType: record.mediaType, size: record.size };
      known.set(key, descriptor);
      return descriptor;
    },
    add(repository, { digest, mediaType, size }) {
      const key = memberKey(repository, digest);
      const before = known.get(key);
      if (before?.mediaType === mediaType && before.size === size) return;
      known.set(key, { digest, mediaType, size });
      records.write(key, { mediaType, size });
    },
  };
}
