import { readFile, stat } from 'node:fs/promises';
import { OciError } from '../oci/error.ts';
import type { Log } from '../telemetry/log.ts';

/** User name → bcrypt hash. */
export type Users = ReadonlyMap<string, string>;

/** The interval between two checks of the file, in ms. */
const CHECK_INTERVAL_MS = 1_000;
const LINE = /^([^:\s]+):(\$2[abxy]\$\d\d\$[./A-Za-z0-9]{53})$/;

/** Opens an htpasswd file: lines of `user:hash`, bcrypt only, as `htpasswd -B` writes them.
 *  @returns a function that returns the current users; the same map as long as the file has not changed. If the file becomes
 *           unreadable later, the last users read remain.
 *  @throws OciError UNAVAILABLE: the file cannot be read, or has no user */
export async function openHtpasswd(file: string, log: Log): Promise<() => Promise<Users>> {
  let version = '';
  let users: Users = new Map();

  async function refresh(): Promise<Users> {
    const { mtimeMs, ino, size } = await stat(file);
    const found = `${ino} ${mtimeMs} ${size}`;
    if (found === version) return users;
    const parsed = parseUsers(await readFile(file, 'utf8'));
    if (parsed.ignored > 0)
      log.warn(
        { event: 'htpasswd-lines-ignored', file, lines: parsed.ignored },
        'ignoring htpasswd lines without a bcrypt hash; create them with htpasswd -B',
      );
    version = found;
    users = parsed.users;
    return users;
  }

  try {
    await refresh();
  } catch (cause) {
    throw new OciError('UNAVAILABLE', `the htpasswd file ${file} cannot be read: ${(cause as NodeJS.ErrnoException).code}`, { cause });
  }
  if (users.size === 0) throw new OciError('UNAVAILABLE', `the htpasswd file ${file} has no user; add one with htpasswd -B`);

  let checked = performance.now();
  return async () => {
    if (performance.now() - checked < CHECK_INTERVAL_MS) return users;
    checked = performance.now();
    try {
      return await refresh();
    } catch (error) {
      log.warn({ event: 'htpasswd-unreadable', file, error }, 'cannot read the htpasswd file; keeping the users read last');
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
