import { readFile } from 'node:fs/promises';
import { createSecureContext } from 'node:tls';
import { OciError } from '../oci/error.ts';
import type { Log } from '../telemetry/log.ts';
import type { TlsPair } from './listen.ts';

export interface TlsFiles {
  certFile: string;
  keyFile: string;
}

/** Reads a certificate chain and its key. @throws OciError UNAVAILABLE: unreadable, no PEM, or not
 *  a pair */
export async function loadTls(files: TlsFiles): Promise<TlsPair> {
  try {
    const [cert, key] = await Promise.all([readFile(files.certFile), readFile(files.keyFile)]);
    createSecureContext({ cert, key });
    return { cert, key };
  } catch (cause) {
    const { message } = cause as Error; // names a file or an OpenSSL reason, never a key
    throw new OciError('UNAVAILABLE', `the certificate ${files.certFile} with the key ${files.keyFile} cannot be used: ${message}`, {
      cause,
    });
  }
}

export interface FollowOptions {
  /** Called with each new pair. */
  use: (pair: TlsPair) => void;
  log: Log;
  /** Stops the watch. */
  signal: AbortSignal;
  /** The polling interval, in ms. Polling is the only method that works for mounted Secrets, which
   *  change when a link is swapped. */
  interval?: number;
}

/** Polls the files for changes until `signal` aborts. While they are not a usable pair, as between
 *  the writes of the two files, the last good pair stays in use, and the log says so once. */
export function followTls(files: TlsFiles, current: TlsPair, options: FollowOptions): void {
  const { use, log, signal, interval = 10_000 } = options;
  let known = current;
  let complained = '';
  let looking = false;
  const look = async () => {
    try {
      const pair = await loadTls(files);
      complained = '';
      if (isSame(pair, known)) return;
      known = pair;
      use(pair);
      log.info({ event: 'certificate-reloaded', certificate: files.certFile }, 'certificate reloaded');
    } catch (error) {
      const { message } = error as Error;
      if (message !== complained)
        log.warn({ event: 'certificate-not-reloaded', error }, 'cannot reload the certificate; keeping the previous one');
      complained = message;
    }
  };
  const timer = setInterval(() => {
    if (looking) return;
    looking = true;
    void look().finally(() => {
      looking = false;
    });
  }, interval);
  timer.unref();
  signal.addEventListener('abort', () => clearInterval(timer), { once: true });
}

function isSame(one: TlsPair, other: TlsPair): boolean {
  return String(one.cert) === String(other.cert) && String(one.key) === String(other.key);
}
