import { createHash, createHmac, randomBytes } from 'node:crypto';
import { fieldsOf, textOf, type Fields } from '../io/untrusted.ts';
import { idOf } from './capability.ts';
import { DockerConfigError, readDockerConfig, type Login } from './docker-config.ts';
import { covers, parseImageRepository, parseScope, type Scope } from './keyring.ts';

/** An entry of a pull secret that can be used. */
export interface PullEntry {
  /** Its capability: 26 characters. Never logged above debug. */
  id: string;
  /** The key as written in the Secret: `https://index.docker.io/v1/`. */
  registry: string;
  scope: Scope;
  /** Equal for entries with the same user name and password, in any Secret. */
  login: string;
}

/** A Secret of one of the types that the kubelet reads. */
export interface PullSecret {
  entries: readonly PullEntry[];
  /** Why the kubelet pulls no image for a pod that names this Secret. It has no entries then. */
  problem?: string;
}

/** The credentials that an id stands for. The same object until the user name or password
 *  changes. */
export interface PullCredential {
  username: string;
  password: string;
  /** The namespace of the Secret. */
  namespace: string;
  secret: string;
  /** Whether the entry matches this repository; its credentials are sent for no other. @param
   *  repository with its host: `docker.io/acme/app` */
  covers(this: void, repository: string): boolean;
}

/** An index of the known pull secrets. */
export interface SecretIndex {
  /** @param owner only the owner that set a Secret last can remove it
   *  @returns a new problem of the Secret, if it has one */
  set(key: string, secret: Fields, owner: string): { problem: string } | undefined;
  remove(key: string, owner: string): void;
  removeAll(owner: string): void;
  find(key: string): PullSecret | undefined;
  credential(id: string): PullCredential | undefined;
  /** Recomputes the ids of all entries with this key. */
  useKey(key: string): void;
  counts(): { usable: number; unusable: number };
}

interface Stored extends PullSecret {
  owner: string;
  namespace: string;
  name: string;
  uid: string;
  /** To detect whether the content has changed. */
  digest: string;
  /** The size of the docker config, in bytes. */
  size: number;
  credentials: readonly PullCredential[];
}

/** The limit for all docker configs of one namespace, in bytes. The API server bounds a Secret to 1
 *  MiB, but not how many there are. */
const MAX_NAMESPACE_BYTES = 4 * 2 ** 20;

/** @param keepsPasswords false: `credential` knows nothing, for a process that only needs the
 *  ids */
export function createSecretIndex(firstKey: string, { keepsPasswords }: { keepsPasswords: boolean }): SecretIndex {
  const secrets = new Map<string, Stored>();
  const credentials = new Map<string, PullCredential>();
  const bytes = new Map<string, number>();
  // Ids are looked up by their hash under a key of this process: how long a look-up takes says
  // nothing about the ids that exist.
  const lookupKey = randomBytes(32);
  const hashed = (id: string): string => createHmac('sha256', lookupKey).update(id).digest('base64');
  let key = firstKey;

  function add(name: string, stored: Stored): void {
    secrets.set(name, stored);
    bytes.set(stored.namespace, (bytes.get(stored.namespace) ?? 0) + stored.size);
    stored.credentials.forEach((credential, index) => credentials.set(hashed(stored.entries[index]?.id ?? ''), credential));
  }
  function drop(name: string, stored: Stored): void {
    secrets.delete(name);
    const left = (bytes.get(stored.namespace) ?? 0) - stored.size;
    if (left > 0) bytes.set(stored.namespace, left);
    else bytes.delete(stored.namespace);
    for (const { id } of stored.entries) credentials.delete(hashed(id));
  }

  function read(secret: Fields, before: Stored | undefined, owner: string): Stored {
    const { namespace, name, uid } = metadataOf(secret);
    const { logins, size, problem } = readLogins(secret, (bytes.get(namespace) ?? 0) - (before?.size ?? 0));
    const scoped = logins.flatMap((login) => {
      const scope = parseScope(login.registry);
      return scope === undefined ? [] : [{ ...login, scope }];
    });
    const entries = scoped.map(({ registry, scope, username, password }) => {
      return { id: idOf({ uid, registry }, key), registry, scope, login: hashed(JSON.stringify([username, password])) };
    });
    const own = keepsPasswords ? scoped.map((entry) => credentialOf(entry, { namespace, secret: name })) : [];
    const digest = createHash('sha256')
      .update(JSON.stringify([uid, logins, problem]))
      .digest('base64');
    return { owner, namespace, name, uid, digest, size, entries, credentials: own, ...(problem === undefined ? {} : { problem }) };
  }

  return {
    set(name, secret, owner) {
      const before = secrets.get(name);
      const now = read(secret, before, owner);
      if (before?.digest === now.digest) {
        before.owner = owner;
        return undefined;
      }
      if (before !== undefined) drop(name, before);
      add(name, now);
      return now.problem === undefined || now.problem === before?.problem ? undefined : { problem: now.problem };
    },
    remove(name, owner) {
      const stored = secrets.get(name);
      if (stored?.owner === owner) drop(name, stored);
    },
    removeAll(owner) {
      for (const [name, stored] of secrets) if (stored.owner === owner) drop(name, stored);
    },
    find: (name) => secrets.get(name),
    credential: (id) => credentials.get(hashed(id)),
    useKey(next) {
      key = next;
      credentials.clear();
      for (const [name, stored] of Array.from(secrets)) {
        const entries = stored.entries.map((entry) => ({ ...entry, id: idOf({ uid: stored.uid, registry: entry.registry }, key) }));
        drop(name, stored);
        add(name, { ...stored, entries });
      }
    },
    counts() {
      const unusable = [...secrets.values()].filter(({ problem }) => problem !== undefined).length;
      return { usable: secrets.size - unusable, unusable };
    },
  };
}

function credentialOf({ scope, username, password }: Login & { scope: Scope }, of: { namespace: string; secret: string }): PullCredential {
  return { username, password, ...of, covers: (repository) => covers(scope, parseImageRepository(repository)) };
}

/** @param held - bytes of the other pull secrets of its namespace */
function readLogins(secret: Fields, held: number): { logins: Login[]; size: number; problem?: string } {
  const size = Object.values(fieldsOf(secret['data'])).reduce<number>((sum, value) => sum + (textOf(value)?.length ?? 0), 0);
  if (held + size > MAX_NAMESPACE_BYTES)
    return { logins: [], size: 0, problem: `the pull secrets of its namespace have more than ${MAX_NAMESPACE_BYTES} bytes` };
  try {
    return { logins: readDockerConfig(secret), size };
  } catch (error) {
    if (!(error instanceof DockerConfigError)) throw error;
    return { logins: [], size: 0, problem: error.message };
  }
}

function metadataOf(secret: Fields): { namespace: string; name: string; uid: string } {
  const metadata = fieldsOf(secret['metadata']);
  const [namespace = '', name = '', uid = ''] = ['namespace', 'name', 'uid'].map((field) => textOf(metadata[field]));
  return { namespace, name, uid };
}
