import { fieldsOf, itemsOf, textOf, type Fields } from '../io/untrusted.ts';
import { parseImageRepository, selectEntries } from '../pull-secrets/keyring.ts';
import type { PullEntry, PullSecret } from '../pull-secrets/secret-index.ts';

/** The Secrets of a namespace with these names, each undefined if it does not exist; undefined if
 *  Secrets are not read at all. */
export type SecretLookup = (namespace: string, names: readonly string[]) => readonly (PullSecret | undefined)[] | undefined;

/** The ids of the entries of the pod's secrets that match an image, in the order in which the
 *  kubelet would try them; or why they cannot be determined. `repository`: with its host, without a
 *  tag, as returned by fullNames(). */
export type EntriesFor = (
  repository: string,
  of: { pod: Fields; namespace: string },
) => { ids: readonly string[] } | { reason: 'pull-secret' | 'secret-missing' | 'secret-unusable' };

/** The images of a pod with more secrets are not rewritten. */
const MAX_SECRETS = 64;
/** The limit of comparisons of an entry with an image, for one pod: about 10 ms. Beyond it, its
 *  images are not rewritten. */
const MAX_COMPARISONS = 100_000;

interface PodEntries {
  entries: readonly PullEntry[];
  comparisons: number;
}
type Reading = PodEntries | { reason: 'pull-secret' | 'secret-missing' | 'secret-unusable' };

/** The names of a pod's pull secrets, those of its ServiceAccount included: the API server has put
 *  them there. */
export function pullSecretNames(pod: Fields): string[] {
  const { imagePullSecrets } = fieldsOf(pod['spec']);
  if (imagePullSecrets === undefined) return [];
  const names = itemsOf(imagePullSecrets).map(({ name }) => textOf(name) ?? '');
  return [...new Set(names.filter((name) => name !== ''))];
}

/** @param isIgnored whether an unknown Secret may be ignored */
export function createEntriesFor({ secretsOf, isIgnored }: { secretsOf: SecretLookup; isIgnored: (name: string) => boolean }): EntriesFor {
  const readings = new WeakMap<Fields, Reading>();

  function read(pod: Fields, namespace: string): Reading {
    const names = pullSecretNames(pod);
    if (names.length === 0) return { entries: [], comparisons: 0 };
    if (names.length > MAX_SECRETS) return { reason: 'pull-secret' };
    const secrets = secretsOf(namespace, names);
    if (secrets === undefined) return names.every(isIgnored) ? { entries: [], comparisons: 0 } : { reason: 'pull-secret' };
    // The kubelet would pull with a Secret that is created later, so its images may be private.
    if (names.some((name, index) => secrets[index] === undefined && !isIgnored(name))) return { reason: 'secret-missing' };
    if (secrets.some((secret) => secret?.problem !== undefined)) return { reason: 'secret-unusable' };
    return { entries: secrets.flatMap((secret) => secret?.entries ?? []), comparisons: 0 };
  }

  return (repository, { pod, namespace }) => {
    const reading = readings.get(pod) ?? read(pod, namespace);
    readings.set(pod, reading);
    if ('reason' in reading) return reading;
    reading.comparisons += reading.entries.length;
    if (reading.comparisons > MAX_COMPARISONS) return { reason: 'pull-secret' };
    const selected = selectEntries(reading.entries, parseImageRepository(repository));
    // Trying the same user and password twice is useless.
    const distinct = selected.filter(({ login }, index) => selected.findIndex((other) => other.login === login) === index);
    return { ids: distinct.map(({ id }) => id) };
  };
}
