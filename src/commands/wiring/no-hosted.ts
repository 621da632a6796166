import { OciError } from '../../oci/error.ts';
import type { Repository, Tag } from '../../oci/reference.ts';
import type { Registry } from '../../oci/registry.ts';
import { withBasicAuth, type Authenticate } from '../../server/basic-auth.ts';
import type { RequestHandler } from '../../server/listen.ts';

export interface HostedRepositories {
  /** The registries by the first component of their repositories, to be routed together with the
   *  upstreams. */
  registries: Record<string, Registry>;
  /** Answers requests for hosted repositories, and passes all others to `next`. */
  serve(this: void, next: RequestHandler): RequestHandler;
  /** The same for a listener where every request requires a login that `admits` accepts. For hosted
   *  repositories, and for the login itself, a login of registry.users or of a ServiceAccount is
   *  accepted as well. */
  serveExposed(this: void, next: RequestHandler, admits: Authenticate): RequestHandler;
  /** Applies the retention rules. */
  applyRetention(this: void, signal: AbortSignal): Promise<unknown>;
  /** Deletes a tag. @throws OciError DENIED: it is immutable; MANIFEST_UNKNOWN, NAME_UNKNOWN;
   *  UNAVAILABLE */
  deleteTag(this: void, repository: Repository, tag: Tag, signal: AbortSignal): Promise<void>;
}

/** For a registry without registry.hosted, which does not load the code of pushes. */
export const noHosted: HostedRepositories = {
  registries: {},
  serve: (next) => next,
  serveExposed: withBasicAuth,
  applyRetention: () => Promise.resolve(),
  deleteTag: (repository) => Promise.reject(notHosted(repository)),
};

export function notHosted(repository: Repository): OciError {
  return new OciError('NAME_UNKNOWN', `${repository} is not a hosted repository`);
}
