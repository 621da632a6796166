import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { ControlPlane } from './control-plane.ts';
import { until } from './until.ts';

/** Runs helm; `values` are its stdin, for `--values -`. @returns stdout @throws Error with
 *  stderr */
export type Helm = (args: readonly string[], values?: unknown) => Promise<string>;

/** @param path of the program */
export function createHelm(path: string, { kubeconfig, namespace }: { kubeconfig: string; namespace: string }): Helm {
  return async (args, values = {}) => {
    const flags = ['--kubeconfig', kubeconfig, '--namespace', namespace];
    const child = promisify(execFile)(path, [...args, ...flags], { maxBuffer: 64 * 1024 * 1024 });
    child.child.stdin?.end(JSON.stringify(values));
    return (await child).stdout;
  };
}

type Kubectl = ControlPlane['kubectl'];

/** All objects in a namespace and outside namespaces, except those that the cluster creates:
 *  KIND/NAME, sorted. */
export async function everythingIn(kubectl: Kubectl, namespace: string): Promise<string[]> {
  const kinds = (await kubectl(['api-resources', '--verbs=list,delete', '-o', 'name']))
    .split('\n')
    .filter((name) => name !== '' && !/^events|^leases|^apiservices/.test(name));
  const found = await kubectl(['-n', namespace, 'get', kinds.join(','), '-o', 'name']);
  return found
    .split('\n')
    .filter((name) => name !== '')
    .sort();
}

/** With the account that the cluster puts into it. */
export async function createNamespace(kubectl: Kubectl, name: string): Promise<void> {
  await kubectl(['create', 'namespace', name]);
  const hasAccount = async (): Promise<boolean> =>
    (await kubectl(['-n', name, 'get', 'serviceaccounts', '-o', 'name'])).includes('default');
  await until(hasAccount, `${name} has its account`);
}

/** Claims stay after an uninstallation, and no controller runs that would release them. */
export async function removeClaims(kubectl: Kubectl, namespace: string): Promise<void> {
  await kubectl(['-n', namespace, 'delete', '--wait=false', 'persistentvolumeclaim', '--all']);
  const left = (await kubectl(['-n', namespace, 'get', 'persistentvolumeclaim', '-o', 'name'])).split('\n').filter((name) => name !== '');
  for (const name of left) await kubectl(['-n', namespace, 'patch', name, '-p', '{"metadata":{"finalizers":null}}']);
}

/** An entry that another program adds to a namespaceSelector, as AKS's admission enforcer does. */
export const FOREIGN_EXPRESSION = { key: 'team', operator: 'NotIn', values: ['platform'] };

/** Writes to a MutatingWebhookConfiguration as AKS's admission enforcer does: as another field
 *  manager. */
export async function enforceAdmission(kubectl: Kubectl, configuration: string): Promise<void> {
  const patch = [{ op: 'add', path: '/webhooks/0/namespaceSelector/matchExpressions/-', value: FOREIGN_EXPRESSION }];
  const enforcer = ['--type=json', '--field-manager=admissionsenforcer', '-p', JSON.stringify(patch)];
  await kubectl(['patch', 'mutatingwebhookconfiguration', configuration, ...enforcer]);
}
