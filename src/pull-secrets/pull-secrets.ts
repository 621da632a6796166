import { createHmac } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { Kubernetes } from '../kubernetes/client.ts';
import { watchObjects, type Change } from '../kubernetes/watch.ts';
import type { Log } from '../telemetry/log.ts';
import { SECRET_TYPES } from './docker-config.ts';
import { createSecretIndex, type PullCredential, type PullSecret } from './secret-index.ts';

export interface PullSecretsOptions {
  /** The namespaces whose Secrets are read. */
  namespaces: readonly string[] | 'all';
  /** The key from which ids are derived; read again regularly, since it may be rotated. @throws
   *  OciError UNAVAILABLE */
  key(this: void): Promise<string>;
  /** Whether this process uses `credential`. */
  keepsPasswords: boolean;
  log: Log;
  signal: AbortSignal;
}

/** The current pull secrets of a cluster, kept up to date in the background, so that lookups need
 *  no request to the API server. While the API server does not answer, the last known ones stay in
 *  use. */
export interface PullSecrets {
  /** Whether every pull secret of the namespace is known. False before the first list, and without
   *  permission. */
  reads(this: void, namespace: string): boolean;
  /** @returns undefined: there is no such Secret, it has another type, or `reads` is false */
  find(this: void, namespace: string, name: string): PullSecret | undefined;
  /** @returns undefined: no entry has this id. Takes the same time for every id */
  credential(this: void, id: string): PullCredential | undefined;
  /** Whether the Secrets have been listed, or the API server has refused to list them. From then
   *  on, an id that `credential` does not know does not exist. */
  isComplete(this: void): boolean;
  /** Whether all readable Secrets are known now: no watch fails. */
  isCurrent(this: void): boolean;
  /** Resolves as soon as isComplete() is true, or when `signal` aborts. */
  complete: Promise<void>;
  counts(this: void): PullSecretCounts;
  /** Derives a secret for a purpose, the same in every process with the key: 64 hexadecimal
   *  digits. */
  derive(this: void, purpose: string): string;
}

export interface PullSecretCounts {
  usable: number;
  unusable: number;
  /** The number of failing watches: no permission, or the API server does not answer. */
  failing: number;
}

/** How often the key is read again, so that a rotated key is noticed. */
const KEY_INTERVAL_MS = 5_000;
/** At least 128 bits, if every character carries 8 bits. */
const MIN_KEY_LENGTH = 16;

interface Source {
  /** Empty: all namespaces. */
  namespace: string;
  /** The Secrets have been listed, and not refused since. */
  isListed: boolean;
  isRefused: boolean;
  isFailing: boolean;
}

/** Follows the Secrets of both types that the kubelet reads, until `signal` aborts.
 *  @throws Error: the key is shorter than 16 characters; OciError UNAVAILABLE: it cannot be read */
export async function createPullSecrets(kubernetes: Kubernetes, options: PullSecretsOptions): Promise<PullSecrets> {
  const { namespaces, keepsPasswords, log, signal } = options;
  let key = await readKey(options.key);
  /** By their purposes: the webhook asks for one with every review. */
  const derived = new Map<string, string>();
  const index = createSecretIndex(key, { keepsPasswords });
  const complete = Promise.withResolvers<void>();
  signal.addEventListener('abort', () => complete.resolve(), { once: true });
  const sources: Source[] = [];
  const isComplete = (): boolean => sources.every(({ isListed, isRefused }) => isListed || isRefused);

  async function follow(source: Source, type: string): Promise<void> {
    const path = source.namespace === '' ? '/api/v1/secrets' : `/api/v1/namespaces/${source.namespace}/secrets`;
    const owner = `${path} ${type}`;
    for await (const change of watchObjects(kubernetes, { path, fieldSelector: `type=${type}` }, signal)) {
      apply(change, source, owner);
      if (isComplete()) complete.resolve();
    }
  }

  function apply(change: Change, source: Source, owner: string): void {
    if (change.type === 'failed') return fail(change, source, owner);
    Object.assign(source, { isFailing: false, isRefused: false });
    if (change.type === 'complete') source.isListed = true;
    if (change.type === 'removed') index.remove(change.key, owner);
    if (change.type !== 'set') return;
    const found = index.set(change.key, change.object, owner);
    if (found === undefined) return;
    const [namespace, secret] = change.key.split('/');
    log.warn(
      { event: 'pull-secret-unusable', namespace, secret, problem: found.problem },
      'cannot use a pull secret; kubelets pull no images for pods that name it',
    );
  }

  /** The same problem is logged once. */
  function fail({ error, isDenied }: Change & { type: 'failed' }, source: Source, owner: string): void {
    const isNew = !source.isFailing || source.isRefused !== isDenied;
    Object.assign(source, { isFailing: true, isRefused: isDenied });
    if (isDenied) {
      source.isListed = false;
      index.removeAll(owner);
    }
    if (!isNew) return;
    const fields = { namespace: source.namespace === '' ? '(all)' : source.namespace, error };
    if (isDenied) log.warn({ event: 'pull-secrets-forbidden', ...fields }, 'RBAC does not allow reading the Secrets; will retry');
    else log.warn({ event: 'pull-secrets-not-read', ...fields }, 'cannot read the Secrets; assuming no change');
  }

  for (const namespace of namespaces === 'all' ? [''] : new Set(namespaces)) {
    for (const type of Object.keys(SECRET_TYPES)) {
      const source = { namespace, isListed: false, isRefused: false, isFailing: false };
      sources.push(source);
      void follow(source, type);
    }
  }
  const byNamespace = Map.groupBy(sources, ({ namespace }) => namespace);
  void followKey(options, (changed) => {
    key = changed;
    derived.clear();
    index.useKey(changed);
  });

  return {
    reads(namespace) {
      const own = byNamespace.get(namespaces === 'all' ? '' : namespace);
      return own?.every(({ isListed }) => isListed) ?? false;
    },
    find: (namespace, name) => index.find(`${namespace}/${name}`),
    credential: (id) => index.credential(id),
    isComplete,
    isCurrent: () => sources.every(({ isListed, isFailing }) => isListed && !isFailing),
    complete: complete.promise,
    derive(purpose) {
      const value = derived.get(purpose) ?? createHmac('sha256', key).update(`purpose\0${purpose}`).digest('hex');
      derived.set(purpose, value);
      return value;
    },
    counts: () => ({ ...index.counts(), failing: sources.filter(({ isFailing }) => isFailing).length }),
  };
}

async function readKey(read: PullSecretsOptions['key']): Promise<string> {
  const key = await read();
  if (key.length < MIN_KEY_LENGTH)
    throw new Error(`the key of pull secrets has ${key.length} characters; at least ${MIN_KEY_LENGTH} are needed`);
  return key;
}

async function followKey({ key: read, log, signal }: PullSecretsOptions, use: (key: string) => void): Promise<void> {
  let known = await read().catch(() => '');
  let reported = '';
  while (!signal.aborted) {
    await delay(KEY_INTERVAL_MS, undefined, { signal, ref: false }).catch(() => undefined); // aborted: the loop ends
    try {
      const key = await readKey(read);
      reported = '';
      if (key === known) continue;
      known = key;
      use(key);
      log.info({ event: 'pull-secrets-key-changed' }, 'the key for the names of private images has changed; private images get new names');
    } catch (error) {
      const { message } = error as Error;
      if (message !== reported)
        log.warn(
          { event: 'pull-secrets-key-unreadable', error },
          'cannot read the key for the names of private images; keeping the previous one',
        );
      reported = message;
    }
  }
}
