import { createHmac, randomBytes } from 'node:crypto';
import { verify } from '@node-rs/bcrypt';
import { OciError } from '../oci/error.ts';
import type { Log } from '../telemetry/log.ts';
import { openHtpasswd, type Users } from './htpasswd.ts';
import type { RequestHandler } from './listen.ts';
import { createLoginQueue } from './login-queue.ts';
import { sendError } from './send-error.ts';

export interface BasicAuthOptions {
  /** An htpasswd file with bcrypt hashes. It is read again when it changes. */
  file: string;
  log: Log;
}

/** The client that a login comes from. */
export interface LoginClient {
  /** Its IP address. */
  address: string;
  /** True once the client has disconnected. */
  isGone: () => boolean;
}

/** Checks an Authorization header against the file.
 *  @returns whether user and password are right
 *  @throws OciError TOOMANYREQUESTS: too many logins are waiting */
export type Authenticate = (authorization: string | undefined, client?: LoginClient) => Promise<boolean>;

/** An empty user and password: what skopeo, buildah and Podman send without a login where the
 *  registry asks for Basic authentication (github.com/containers/image, docker_client.go). */
export const NO_CREDENTIALS = `Basic ${Buffer.from(':').toString('base64')}`;

const MAX_REMEMBERED_LOGINS = 1_000;
const UNKNOWN_CLIENT: LoginClient = { address: '', isGone: () => false };

/** HTTP Basic authentication (RFC 7617).
 *  @throws OciError UNAVAILABLE: the file cannot be read or has no user */
export async function createBasicAuth({ file, log }: BasicAuthOptions): Promise<Authenticate> {
  const readUsers = await openHtpasswd(file, log);
  const inTurn = createLoginQueue();
  const secret = randomBytes(32);
  const keyed = (text: string) => createHmac('sha256', secret).update(text).digest();
  let remembered = new Set<string>();
  let rememberedFor: Users | undefined;

  return async (authorization, { address, isGone } = UNKNOWN_CLIENT) => {
    const given = parseBasic(authorization);
    if (given === undefined) return false;
    const users = await readUsers();
    if (users !== rememberedFor) {
      rememberedFor = users;
      remembered = new Set();
    }
    // Remembers a key instead of the password; it cannot be computed without this process's secret.
    const key = keyed(`${given.user}\0${given.password}`).toString('base64');
    if (remembered.has(key)) return true;
    const into = remembered;
    const own = users.get(given.user);
    const encoded = own ?? standIn(users, keyed(given.user));
    if (encoded === undefined) return false; // the file has lost all its users
    const isRight = await inTurn({ address, user: given.user, isGone }, () => verify(given.password, encoded));
    if (!isRight || own === undefined) return false; // wrong guesses must not push right passwords out
    remember(into, key);
    return true;
  };
}

function remember(logins: Set<string>, key: string): void {
  for (const oldest of logins) {
    if (logins.size < MAX_REMEMBERED_LOGINS) break;
    logins.delete(oldest);
  }
  logins.add(key);
}

/** The hash to compare an unknown user's password with, so that the check takes as long as for a
 *  known user: the hash of some user in the file, always the same one for a name, since hashes in
 *  one file may differ in cost. */
function standIn(users: Users, key: Buffer): string | undefined {
  const hashes = [...users.values()];
  return hashes[key.readUInt32BE() % hashes.length];
}

/** Passes requests with a valid login on to `handler`; answers 401 to all others. */
export function withBasicAuth(handler: RequestHandler, authenticate: Authenticate): RequestHandler {
  return async (request, response) => {
    const client = { address: request.socket.remoteAddress ?? '', isGone: () => response.closed };
    try {
      if (!(await authenticate(request.headers.authorization, client))) {
        response.setHeader('WWW-Authenticate', 'Basic realm="kube-registry", charset="UTF-8"');
        throw new OciError('UNAUTHORIZED', 'a user name and password are required: log in first');
      }
    } catch (error) {
      sendError(response, error, { head: request.method === 'HEAD' });
      return;
    }
    await handler(request, response);
  };
}

/** User and password of an Authorization header (RFC 7617, section 2); undefined: it has none. */
export function parseBasic(header: string | undefined): { user: string; password: string } | undefined {
  const match = header === undefined ? null : /^basic ([A-Za-z0-9+/]{1,12000}={0,2})$/i.exec(header);
  const text = match === null ? '' : Buffer.from(match[1] ?? '', 'base64').toString('utf8');
  const colon = text.indexOf(':');
  return colon < 1 ? undefined : { user: text.slice(0, colon), password: text.slice(colon + 1) };
}
