import type { Downloads } from '../../download/downloads.ts';
import type { Repository, Tag } from '../../oci/reference.ts';
import type { Registry } from '../../oci/registry.ts';
import type { Policy } from '../../policy/guarded.ts';

/** The functions of the registry that the console uses. */
export interface ImagesInside {
  downloads: Pick<Downloads, 'list'>;
  policy: Policy;
  /** The upstream itself, without the cache; undefined: there is no upstream with this name. */
  upstreamOf(this: void, name: string): { registry: Registry; tagTtl: number } | undefined;
  /** Removes a cached tag, from memory and from the store; or deletes the tag of a hosted
   *  repository.
   *  @throws OciError DENIED: it is immutable; MANIFEST_UNKNOWN; UNAVAILABLE */
  deleteTag(this: void, repository: Repository, tag: Tag, signal: AbortSignal): Promise<void>;
  /** Addresses of the other replicas. */
  others(this: void): readonly string[];
}
