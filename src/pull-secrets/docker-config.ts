import { fieldsOf, isFields, textOf, type Fields } from '../io/untrusted.ts';

/** An entry of a docker config, as the kubelet reads it. */
export interface Login {
  /** The key as written: `https://index.docker.io/v1/`. */
  registry: string;
  username: string;
  password: string;
}

/** The kubelet rejects the docker config of a Secret. It then pulls no image for pods that name the
 *  Secret. */
export class DockerConfigError extends Error {
  override readonly name = 'DockerConfigError';
}

/** The types of Secrets that the kubelet reads, with the key that holds the docker config. */
export const SECRET_TYPES = { 'kubernetes.io/dockerconfigjson': '.dockerconfigjson', 'kubernetes.io/dockercfg': '.dockercfg' } as const;

/** The kubelet has no such limits. They limit the memory that a user of a namespace can consume by
 *  creating Secrets. */
const MAX_ENTRIES = 1_000;
const MAX_LOGIN_LENGTH = 64 * 1024;

/** Reads the docker config of a Secret. As in the kubelet, `auth` overrides `username` and
 *  `password`, and tokens (`identitytoken`, `registrytoken`) are ignored; an entry without a user
 *  name is ignored, because no container runtime can use it.
 *  @param secret as the API server has it
 *  @throws DockerConfigError, without anything from the Secret in its message */
export function readDockerConfig(secret: Fields): Login[] {
  const type = textOf(secret['type']) ?? '';
  if (!Object.hasOwn(SECRET_TYPES, type)) return [];
  const encoded = textOf(fieldsOf(secret['data'])[SECRET_TYPES[type as keyof typeof SECRET_TYPES]]) ?? '';
  if (encoded === '') return [];
  const document = parseObject(Buffer.from(encoded, 'base64').toString());
  const auths = type === 'kubernetes.io/dockerconfigjson' ? (fieldOf(document, 'auths') ?? {}) : document;
  if (!isFields(auths)) throw new DockerConfigError('auths is not an object');
  const entries = Object.entries(auths);
  if (entries.length > MAX_ENTRIES) throw new DockerConfigError(`it has ${entries.length} entries; at most ${MAX_ENTRIES} are read`);
  return entries.map(([registry, entry]) => readEntry(registry, entry)).filter(({ username }) => username !== '');
}

function parseObject(json: string): Fields {
  try {
    const document: unknown = JSON.parse(json);
    if (document === null) return {};
    if (isFields(document)) return document;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new DockerConfigError('it is not JSON'); // the parser's message would quote the Secret
  }
  throw new DockerConfigError('it is not an object');
}

/** Go ignores the case of keys; of several equal keys, the last one counts. */
function fieldOf(object: Fields, name: string): unknown {
  const key = Object.keys(object).findLast((key) => key.toLowerCase() === name);
  return key === undefined ? undefined : object[key];
}

function readEntry(registry: string, entry: unknown): Login {
  if (entry === null) return { registry, username: '', password: '' };
  if (!isFields(entry)) throw new DockerConfigError('an entry is not an object');
  const [username, password, , auth] = ['username', 'password', 'email', 'auth'].map((name) => {
    const value = fieldOf(entry, name) ?? '';
    if (typeof value !== 'string') throw new DockerConfigError(`the ${name} of an entry is not a text`);
    if (value.length > MAX_LOGIN_LENGTH)
      throw new DockerConfigError(`the ${name} of an entry is longer than ${MAX_LOGIN_LENGTH} characters`);
    return value;
  }) as [string, string, string, string];
  return { registry, ...(auth === '' ? { username, password } : decodeAuth(auth)) };
}

/** Base64 of `user:password`, with padding or without. */
function decodeAuth(auth: string): { username: string; password: string } {
  const text = auth.replaceAll(/[\r\n]/g, '');
  const isPadded = auth.trim().endsWith('=');
  const isValid = isPadded
    ? /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)$/
    : /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2,3})?$/;
  if (!isValid.test(text)) throw new DockerConfigError('the auth of an entry is not base64');
  const decoded = Buffer.from(text, 'base64').toString();
  const colon = decoded.indexOf(':');
  if (colon === -1) throw new DockerConfigError('the auth of an entry is not base64 of user:password');
  return { username: decoded.slice(0, colon), password: decoded.slice(colon + 1) };
}
