import type { HostedConfig, HostedRule } from '../config/hosted-schema.ts';
import type { Repository } from '../oci/reference.ts';
import { SERVICE_ACCOUNT_PREFIX, type Action, type Caller } from '../oci/caller.ts';

/** Whether the configuration allows a caller to act on a repository, whose name is without the
 *  registry's own. */
export function createRights({
  pull,
  push,
  delete: remove,
}: Pick<HostedConfig, 'pull' | 'push' | 'delete'>): (caller: Caller, action: Action, repository: Repository) => boolean {
  const rules: Record<Action, 'anyone' | readonly HostedRule[]> = { pull, push, delete: remove };
  return (caller, action, repository) => {
    const own = rules[action];
    if (own === 'anyone') return true;
    // Pushing and deleting imply pulling: clients look before they upload.
    const all = action === 'pull' ? [...own, ...push, ...remove] : own;
    return all.some((rule) => repository.startsWith(rule.repositories) && names(rule, caller));
  };
}

function names({ users, serviceAccounts }: HostedRule, { name }: Caller): boolean {
  if (name === undefined) return false;
  if (!name.startsWith(SERVICE_ACCOUNT_PREFIX)) return users.includes(name);
  return serviceAccounts.includes(name.slice(SERVICE_ACCOUNT_PREFIX.length));
}
