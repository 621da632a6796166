import type { Action, Caller } from '../oci/caller.ts';
import type { PushRegistry } from '../oci/push-registry.ts';
import type { Repository } from '../oci/reference.ts';

/** A hosted registry, whose repositories share their first component. */
export interface HostedRegistry {
  registry: PushRegistry;
  /** @param repository without the first component */
  isAllowed(this: void, caller: Caller, action: Action, repository: Repository): boolean;
}
