import { createImageGlobs } from '../oci/image-globs.ts';
import type { Digest } from '../oci/digest.ts';
import type { Repository, Tag } from '../oci/reference.ts';

/** The verdict on a name. `rule`: the rule that decides, for display; undefined: no rule
 *  matches. */
export interface Verdict {
  allowed: boolean;
  rule: string | undefined;
}

export interface Rules {
  /** Whether there is any rule. */
  isEmpty: boolean;
  tag(this: void, repository: Repository, tag: Tag): Verdict;
  /** @param tags the tags of the repository that are known to lead to the digest: it is one of
   *  their manifests or blobs. The digest may be pulled if any of these tags may be pulled */
  digest(this: void, repository: Repository, digest: Digest, tags: readonly Tag[]): Verdict;
  /** Whether the verdict on a digest of this repository depends on tags that lead to it. */
  dependsOnTags(this: void, repository: Repository, digest: Digest): boolean;
}

export interface RulesOptions {
  /** Globs over the names that `namesOf` returns, with or without a reference. See
   *  registry.policy. */
  allow: readonly string[];
  deny: readonly string[];
  /** Every name of a repository: dockerhub/library/nginx, docker.io/library/nginx. */
  namesOf(this: void, repository: Repository): readonly string[];
}

/** registry.policy.allow and registry.policy.deny. A glob without a tag (`docker.io/library/nginx`,
 *  `docker.io/library/*`) applies to the repository with all its tags and digests; a glob with a
 *  tag (`*:latest`) applies to that tag. */
export function createRules({ allow, deny, namesOf }: RulesOptions): Rules {
  const [allowed, denied] = [createImageGlobs(allow), createImageGlobs(deny)];
  const exact = [...allow, ...deny].map(trimTag).filter((glob) => glob !== undefined);
  const withTags = createImageGlobs(exact);

  function find(globs: typeof allowed, repository: Repository, reference: string): string | undefined {
    for (const name of namesOf(repository)) {
      const found = globs.find(name) ?? globs.find(name + reference);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  function judge(repository: Repository, reference: string): Verdict {
    const refusing = find(denied, repository, reference);
    if (refusing !== undefined) return { allowed: false, rule: `registry.policy.deny has ${refusing}` };
    if (allowed.isEmpty) return { allowed: true, rule: undefined };
    const admitting = find(allowed, repository, reference);
    if (admitting !== undefined) return { allowed: true, rule: `registry.policy.allow has ${admitting}` };
    return { allowed: false, rule: 'registry.policy.allow does not have it' };
  }

  return {
    isEmpty: allowed.isEmpty && denied.isEmpty,
    tag: (repository, tag) => judge(repository, `:${tag}`),
    digest(repository, digest, tags) {
      const own = judge(repository, `@${digest}`);
      if (own.rule?.startsWith('registry.policy.deny') === true || tags.length === 0) return own;
      const verdicts = tags.map((tag) => judge(repository, `:${tag}`));
      return verdicts.find((verdict) => verdict.allowed) ?? verdicts[0] ?? own;
    },
    dependsOnTags(repository, digest) {
      const own = judge(repository, `@${digest}`);
      const isFinal = own.rule?.startsWith('registry.policy.deny') === true;
      return !isFinal && namesOf(repository).some((name) => withTags.find(name) !== undefined);
    },
  };
}

/** The part of a glob before its tag; undefined: it has none. A colon before the last slash belongs
 *  to a host's port. A group of alternatives may contain tags of several repositories. */
function trimTag(glob: string): string | undefined {
  if (/[{(]/.test(glob)) return '*';
  const colon = glob.lastIndexOf(':');
  return colon > glob.lastIndexOf('/') && !glob.includes('@') ? glob.slice(0, colon) : undefined;
}
