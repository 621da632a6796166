import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { idOf } from '../../src/pull-secrets/capability.ts';
import { startControlPlane, type ControlPlane } from './control-plane.ts';

export interface SecretCluster extends AsyncDisposable {
  plane: ControlPlane;
  /** The program's keys for reading the Secrets of all namespaces. */
  config: { pullSecrets: Record<string, unknown> };
  env: NodeJS.ProcessEnv;
  /** Creates or replaces a pull Secret.
   *  @returns the first component of the names that its first entry opens: `by-<id>` */
  set(namespace: string, name: string, logins: Record<string, Login>): Promise<string>;
  remove(namespace: string, name: string): Promise<void>;
  /** Changes the key from which ids are made. */
  rotate(key: string): Promise<void>;
}

export interface Login {
  username: string;
  password: string;
}

/** A real API server with pull Secrets in it. @param directory for the key */
export async function startSecretCluster(directory: string): Promise<SecretCluster> {
  const plane = await startControlPlane();
  const keyFile = join(directory, 'names-key');
  let key = 'a-key-of-at-least-16-characters';
  await writeFile(keyFile, key);
  const namespaces = new Set<string>();

  return {
    plane,
    config: { pullSecrets: { allNamespaces: true, keyFile } },
    env: { KUBECONFIG: plane.kubeconfig },
    async set(namespace, name, logins) {
      if (!namespaces.has(namespace)) await plane.kubectl(['create', 'namespace', namespace]);
      namespaces.add(namespace);
      const auths = Object.fromEntries(Object.entries(logins).map(([host, login]) => [host, login]));
      const secret = {
        apiVersion: 'v1',
        kind: 'Secret',
        metadata: { namespace, name },
        type: 'kubernetes.io/dockerconfigjson',
        stringData: { '.dockerconfigjson': JSON.stringify({ auths }) },
      };
      const applied = await plane.kubectl(['apply', '-o', 'json', '-f', '-'], JSON.stringify(secret));
      const { metadata } = JSON.parse(applied) as { metadata: { uid: string } };
      return `by-${idOf({ uid: metadata.uid, registry: Object.keys(logins)[0] ?? '' }, key)}`;
    },
    async remove(namespace, name) {
      await plane.kubectl(['delete', 'secret', '-n', namespace, name]);
    },
    async rotate(next) {
      key = next;
      await writeFile(keyFile, key);
    },
    [Symbol.asyncDispose]: () => plane[Symbol.asyncDispose](),
  };
}
