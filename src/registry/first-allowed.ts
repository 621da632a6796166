import { isAbsent, isOciError, OciError } from '../oci/error.ts';
import type { Repository } from '../oci/reference.ts';
import type { Registry } from '../oci/registry.ts';

export interface FirstAllowedOptions {
  /** The registries that may be asked for a repository, in this order. */
  candidatesFor(this: void, repository: Repository): readonly Registry[];
  /** Called with the registry that has answered, unless it is the first one. */
  allowed?(this: void, repository: Repository, registry: Registry): void;
}

/** One registry with several logins. If the registry refuses a login (401, 403) or hides the
 *  content from it (404), the next login is tried, as the kubelet tries several pull secrets in
 *  order.
 *  @throws the most specific OciError; NAME_UNKNOWN: no login matches the repository */
export function firstAllowed({ candidatesFor, allowed }: FirstAllowedOptions): Registry {
  async function ask<T>(repository: Repository, work: (registry: Registry) => Promise<T>): Promise<T> {
    const candidates = candidatesFor(repository);
    let refusal: unknown = new OciError('NAME_UNKNOWN', `no pull secret of this name matches ${repository}`);
    for (const [index, registry] of candidates.entries()) {
      try {
        const answer = await work(registry);
        if (index > 0) allowed?.(repository, registry);
        return answer;
      } catch (error) {
        if (!isRefusal(error)) throw error;
        if (index === 0 || isAbsent(refusal)) refusal = error; // a 403 is more specific than a 404
      }
    }
    throw refusal;
  }

  return {
    resolve: (repository, ...asked) => ask(repository, (registry) => registry.resolve(repository, ...asked)),
    manifest: (repository, ...asked) => ask(repository, (registry) => registry.manifest(repository, ...asked)),
    stat: (repository, ...asked) => ask(repository, (registry) => registry.stat(repository, ...asked)),
    blob: (repository, ...asked) => ask(repository, (registry) => registry.blob(repository, ...asked)),
    referrers: (repository, ...asked) => ask(repository, (registry) => registry.referrers(repository, ...asked)),
    async *tags(repository, context) {
      const { iterator, first } = await ask(repository, async (registry) => {
        const iterator = registry.tags(repository, context)[Symbol.asyncIterator]();
        return { iterator, first: await iterator.next() };
      });
      try {
        for (let step = first; step.done !== true; step = await iterator.next()) yield step.value;
      } finally {
        await iterator.return?.();
      }
    },
  };
}

function isRefusal(error: unknown): boolean {
  return isAbsent(error) || isOciError(error, 'UNAUTHORIZED', 'DENIED');
}
