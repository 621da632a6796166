import { fieldsOf, itemsOf, textOf, type Fields } from '../io/untrusted.ts';
import { selectEntries, type ImageRepository } from '../pull-secrets/keyring.ts';
import type { PullEntry, PullSecret } from '../pull-secrets/secret-index.ts';

/** The Secrets of a namespace with these names, each undefined if it does not exist; undefined if
 *  Secrets are not read at all. */
export type SecretLookup = (namespace: string, names: readonly string[]) => readonly (PullSecret | undefined)[] | undefined;

/** The pull secrets of a pod. */
export interface PodSecrets {
  /** The same for all pods of the namespace that name the same Secrets in the same order. */
  id: string;
  /** The Secrets that are known; empty if the pod names none, or if they cannot be read. */
  known: readonly (PullSecret | undefined)[];
  /** The ids of the entries that match an image, in the order in which the kubelet would try them;
   *  or why they cannot be determined. */
  entriesFor(
    this: void,
    repository: ImageRepository,
  ): { ids: readonly string[] } | { reason: 'pull-secret' | 'secret-missing' | 'secret-unusable' };
}

/** The images of a pod with more secrets are not rewritten. */
const MAX_SECRETS = 64;
/** The limit of comparisons of an entry with an image, for one pod: about 10 ms. Beyond it, its
 *  images are not rewritten. */
const MAX_COMPARISONS = 100_000;

/** The names of a pod's pull secrets, those of its ServiceAccount included: the API server has put
 *  them there. */
export function pullSecretNames(pod: Fields): string[] {
  const { imagePullSecrets } = fieldsOf(pod['spec']);
  if (imagePullSecrets === undefined) return [];
  const names = itemsOf(imagePullSecrets).map(({ name }) => textOf(name) ?? '');
  return [...new Set(names.filter((name) => name !== ''))];
}

interface PodEntries {
  entries: readonly PullEntry[];
  comparisons: number;
}
type Reading = PodEntries | { reason: 'pull-secret' | 'secret-missing' | 'secret-unusable' };

/** @param isIgnored whether an unknown Secret may be ignored */
export function createPodSecrets({
  secretsOf,
  isIgnored,
}: {
  secretsOf: SecretLookup;
  isIgnored: (name: string) => boolean;
}): (pod: Fields, namespace: string) => PodSecrets {
  function read(names: readonly string[], secrets: ReturnType<SecretLookup>): Reading {
    if (names.length > MAX_SECRETS) return { reason: 'pull-secret' };
    if (secrets === undefined) return names.every(isIgnored) ? { entries: [], comparisons: 0 } : { reason: 'pull-secret' };
    // The kubelet would pull with a Secret that is created later, so its images may be private.
    if (names.some((name, index) => secrets[index] === undefined && !isIgnored(name))) return { reason: 'secret-missing' };
    if (secrets.some((secret) => secret?.problem !== undefined)) return { reason: 'secret-unusable' };
    return { entries: secrets.flatMap((secret) => secret?.entries ?? []), comparisons: 0 };
  }

  return (pod, namespace) => {
    const names = pullSecretNames(pod);
    const isReadable = names.length > 0 && names.length <= MAX_SECRETS;
    const secrets = isReadable ? secretsOf(namespace, names) : undefined;
    let reading: Reading | undefined;
    return {
      id: `${namespace}\n${names.join('\n')}`,
      known: secrets ?? [],
      entriesFor(repository) {
        reading ??= read(names, secrets);
        if ('reason' in reading) return reading;
        reading.comparisons += reading.entries.length;
        if (reading.comparisons > MAX_COMPARISONS) return { reason: 'pull-secret' };
        const selected = selectEntries(reading.entries, repository);
        // Trying the same user and password twice is useless.
        const distinct = selected.filter(({ login }, index) => selected.findIndex((other) => other.login === login) === index);
        return { ids: distinct.map(({ id }) => id) };
      },
    };
  };
}
