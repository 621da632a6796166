import { isIP } from 'node:net';
import { Resolver } from 'node:dns/promises';

const TIME_LIMIT_MS = 2000;

/** Whether this machine's name servers answer a query for `host`, even if only that it does not
 *  exist. */
export async function nameServersAnswer(host: string): Promise<boolean> {
  if (isIP(host) !== 0) return true;
  try {
    await new Resolver({ timeout: TIME_LIMIT_MS, tries: 1 }).resolve4(host);
    return true;
  } catch (error) {
    return !['ETIMEOUT', 'ECONNREFUSED', 'ECANCELLED'].includes((error as NodeJS.ErrnoException).code ?? '');
  }
}
