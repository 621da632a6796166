import type { ImagesOptions } from '../../console/handlers/images.ts';
import type { Config } from '../../config/schema.ts';
import { createImageGlobs } from '../../oci/image-globs.ts';
import { servedHosts } from '../../oci/image-name.ts';
import type { Reference, Repository } from '../../oci/reference.ts';
import type { Policy } from '../../policy/guarded.ts';
import { parseWarmName } from '../cache/warm-name.ts';
import { createRepositoryNames } from './repository-names.ts';

/** Translates between names of images and repositories of the registry. */
export interface ConsoleNames {
  /** The upstream and repository of an image; undefined: the registry does not serve it. */
  locate(this: void, image: string): { repository: Repository; reference: Reference } | undefined;
  isHosted(this: void, repository: Repository): boolean;
  /** The usual name of a repository: docker.io/library/nginx. */
  nameOf(this: void, repository: Repository): string;
  /** The properties of an image in the list that follow from its name alone. */
  of(this: void, policy: Policy): Pick<ImagesOptions, 'nameOf' | 'keptBy' | 'deniedBy' | 'firstSeen'>;
}

export function createConsoleNames({ registry, webhook }: Pick<Config, 'registry' | 'webhook'>): ConsoleNames {
  const rules = { registryHost: webhook.registryHost, hosts: servedHosts(registry) };
  const namesOf = createRepositoryNames(registry);
  const keep = createImageGlobs(registry.cache.keep);
  const nameOf = (repository: Repository) => namesOf(repository)[0] ?? repository;
  const isHosted = (repository: Repository) => Object.hasOwn(registry.hosted, repository.slice(0, repository.indexOf('/')));

  return {
    locate: (image) => parseWarmName(image, rules),
    isHosted,
    nameOf,
    of: ({ rules: policy, age }) => ({
      nameOf,
      keptBy({ repository, tag, digest }) {
        if (isHosted(repository)) return 'hosted';
        if (keep.isEmpty) return undefined;
        const references = ['', `@${digest}`, ...(tag === undefined ? [] : [`:${tag}`])];
        const names = [repository, ...namesOf(repository)].flatMap((name) => references.map((reference) => name + reference));
        return names.some((name) => keep.find(name) !== undefined) ? 'pinned' : undefined;
      },
      deniedBy({ repository, tag, digest }) {
        if (policy.isEmpty) return undefined;
        const verdict = tag === undefined ? policy.digest(repository, digest, []) : policy.tag(repository, tag);
        return verdict.allowed ? undefined : verdict.rule;
      },
      firstSeen: async (digest, signal) => age?.firstSeen.recall(digest, signal),
    }),
  };
}
