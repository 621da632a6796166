import type { RegistryConfig } from '../../config/schema.ts';
import { withoutCapability } from '../../oci/capability.ts';
import type { Registry } from '../../oci/registry.ts';
import { createFirstSeen } from '../../policy/first-seen.ts';
import { guarded, type Policy, type Refusal } from '../../policy/guarded.ts';
import { createKnownTags } from '../../policy/known-tags.ts';
import { createRules, type Rules } from '../../policy/rules.ts';
import type { Store } from '../../store/store.ts';
import { createRepositoryNames } from './repository-names.ts';

type Config = Parameters<typeof createRepositoryNames>[0] & Pick<RegistryConfig, 'policy'>;

/** registry.policy.allow and registry.policy.deny. */
function createConfiguredRules(config: Config): Rules {
  const namesOf = createRepositoryNames(config);
  const { allow, deny } = config.policy;
  return createRules({ allow, deny, namesOf: (repository) => [...namesOf(repository), withoutCapability(repository)] });
}

export interface PolicyContext {
  /** Undefined for an agent, which has no store. It then knows only the tags that it has seen
   *  itself, and no ages. */
  storage: { local: Store; remote: Store | undefined; records: Store } | undefined;
  refused(this: void, refusal: Refusal): void;
}

export type Guard = (inner: Registry, name: string) => Registry;

/** registry.policy, as a function that guards the repositories of an upstream or of
 *  registry.hosted. */
export function createGuard(
  config: Config & Pick<RegistryConfig, 'hosted'>,
  { storage, refused }: PolicyContext,
): Guard & { policy: Policy } {
  const stores = storage === undefined ? [] : [storage.local, ...(storage.remote === undefined ? [] : [storage.remote])];
  const namesOf = createRepositoryNames(config);
  const policy: Policy = {
    rules: createConfiguredRules(config),
    tags: createKnownTags(stores),
    age: storage === undefined ? undefined : createAge(config.policy.minimumAge, storage),
    nameOf: (repository) => namesOf(repository)[0] ?? repository,
    refused,
    now: Date.now,
  };
  // Pushed images have no minimum age: users with the right to push decide when an image is ready.
  const pushed: Policy = { ...policy, age: undefined };
  return Object.assign((inner: Registry, name: string) => guarded(inner, name, Object.hasOwn(config.hosted, name) ? pushed : policy), {
    policy,
  });
}

function createAge(minimumMs: number, { records, local, remote }: NonNullable<PolicyContext['storage']>): Policy['age'] {
  if (minimumMs === 0) return undefined;
  return { minimumMs, firstSeen: createFirstSeen({ records, blobs: remote ?? local }) };
}
