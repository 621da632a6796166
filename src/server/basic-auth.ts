import { createHmac, randomBytes } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { hash, verify } from '@node-rs/bcrypt';
import { createSemaphore } from '../async/semaphore.ts';
import { OciError } from '../oci/error.ts';
import type { Log } from '../telemetry/log.ts';
import type { RequestHandler } from './listen.ts';
import { sendError } from './send-error.ts';

export interface BasicAuthOptions {
  /** Lines of `user:hash`, bcrypt only, as `htpasswd -B` writes them. Read again when it changes. */
  file: string;
  log: Log;
}

/** True when the header's user and password agree with the file. @throws OciError TOOMANYREQUESTS, UNAVAILABLE (no file) */
export type Authenticate = (authorization: string | undefined) => Promise<boolean>;

/** bcrypt works on the four threads that the file system has as well: pulls must get through beside it. */
const MAX_VERIFYING = 2;
const MAX_WAITING = 64;
const MAX_REMEMBERED = 1_000;
/** Milliseconds between two looks at the file. */
const CHECK_INTERVAL = 1_000;
const LINE = /^([^:\s]+):(\$2[abxy]\$\d\d\$[./A-Za-z0-9]{53})$/;

/** @throws OciError UNAVAILABLE: the file cannot be read or has no user */
export async function createBasicAuth({ file, log }: BasicAuthOptions): Promise<Authenticate> {
  const users = await createUsers(file, log);
  const verifying = createSemaphore(MAX_VERIFYING, {
    maxWaiting: MAX_WAITING,
    full: () => new OciError('TOOMANYREQUESTS', 'too many logins at once; try again in a moment', { retryAfter: 1 }),
  });
  // An unknown user costs as much time as a wrong password.
  const nobody = await hash(randomBytes(16).toString('hex'), 10);
  const secret = randomBytes(32);
  let remembered = new Set<string>();
  let version: unknown;

  return async (authorization) => {
    const given = parseBasic(authorization);
    if (given === undefined) return false;
    const known = await users();
    if (known !== version) {
      version = known;
      remembered = new Set();
    }
    // What is remembered is no password, nor anything that could be tried without this process's secret.
    const key = createHmac('sha256', secret).update(`${given.user}\0${given.password}`).digest('base64');
    if (remembered.has(key)) return true;
    const into = remembered;
    const encoded = known.get(given.user);
    const agrees = (await verifying.run(() => verify(given.password, encoded ?? nobody))) && encoded !== undefined;
    if (!agrees) return false; // not remembered: guesses must not push out those who are right
    for (const oldest of into) if (into.size < MAX_REMEMBERED || !into.delete(oldest)) break;
    into.add(key);
    return true;
  };
}

/** `handler` for those who authenticate; 401 for others. */
export function withBasicAuth(handler: RequestHandler, authenticate: Authenticate): RequestHandler {
  return async (request, response) => {
    try {
      if (!(await authenticate(request.headers.authorization))) {
        response.setHeader('WWW-Authenticate', 'Basic realm="kube-registry", charset="UTF-8"');
        throw new OciError('UNAUTHORIZED', 'a user name and password are needed here: log in first');
      }
    } catch (error) {
      sendError(response, error, { head: request.method === 'HEAD' });
      return;
    }
    await handler(request, response);
  };
}

function parseBasic(header: string | undefined): { user: string; password: string } | undefined {
  const match = header === undefined ? null : /^basic ([A-Za-z0-9+/]{1,1024}={0,2})$/i.exec(header);
  const text = match === null ? '' : Buffer.from(match[1] ?? '', 'base64').toString('utf8');
  const colon = text.indexOf(':');
  return colon < 1 ? undefined : { user: text.slice(0, colon), password: text.slice(colon + 1) };
}

type Users = ReadonlyMap<string, string>;

/** Gives the file's users as it is now; the same map as long as it has not changed. */
async function createUsers(file: string, log: Log): Promise<() => Promise<Users>> {
  let version = '';
  let users: Users = new Map();
  const read = async () => {
    const { mtimeMs, ino, size } = await stat(file);
    const now = `${ino} ${mtimeMs} ${size}`;
    if (now === version) return users;
    const read = parseUsers(await readFile(file, 'utf8'));
    if (read.ignored > 0)
      log.warn({ file, lines: read.ignored }, 'htpasswd: lines without a bcrypt hash are ignored; make them with htpasswd -B');
    version = now;
    return (users = read.users);
  };
  let first: Users;
  try {
    first = await read();
  } catch (cause) {
    throw new OciError('UNAVAILABLE', `the htpasswd file ${file} cannot be read: ${(cause as NodeJS.ErrnoException).code}`, { cause });
  }
  if (first.size === 0) throw new OciError('UNAVAILABLE', `the htpasswd file ${file} has no user; add one with htpasswd -B`);
  let checked = performance.now();
  return async () => {
    if (performance.now() - checked < CHECK_INTERVAL) return users;
    checked = performance.now();
    try {
      return await read();
    } catch (error) {
      log.warn({ error }, 'htpasswd: the file cannot be read; the last good one stays');
      return users;
    }
  };
}

function parseUsers(content: string): { users: Users; ignored: number } {
  const lines = content.split(/\r?\n/).filter((line) => line.trim() !== '' && !line.startsWith('#'));
  const matches = lines.map((line) => LINE.exec(line.trim())).filter((match) => match !== null);
  return {
    users: new Map(matches.map(([, user = '', encoded = '']) => [user, encoded])),
    ignored: lines.length - matches.length,
  };
}
