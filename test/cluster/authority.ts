import { execFile } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { debianTool } from '../tools/tools.ts';

const run = promisify(execFile);

/** A private certificate authority. */
export interface Authority {
  /** The file of its certificate, and its content. */
  file: string;
  pem: string;
  /** Issues a server certificate for these names, in openssl's format: `DNS:name`, `IP:address`.
   *  Returns the paths. */
  issue(name: string, names: readonly string[]): Promise<{ certificate: string; key: string }>;
}

/** Keeps its files in `directory`, which it creates. */
export async function createAuthority(directory: string): Promise<Authority> {
  const openssl = await debianTool('openssl');
  await mkdir(directory);
  const file = (name: string): string => join(directory, name);
  const request = ['req', '-newkey', 'rsa:2048', '-nodes'];
  await run(openssl, [...request, '-x509', '-days', '3650', '-subj', '/CN=ca', '-keyout', file('ca.key'), '-out', file('ca.crt')]);
  return {
    file: file('ca.crt'),
    pem: await readFile(file('ca.crt'), 'utf8'),
    async issue(name, names) {
      const [key, wish, extensions, certificate] = ['key', 'csr', 'ext', 'crt'].map((ending) => file(`${name}.${ending}`)) as Paths;
      await run(openssl, [...request, '-subj', `/CN=${name}`, '-keyout', key, '-out', wish]);
      await writeFile(extensions, `subjectAltName=${names.join(',')}`);
      const sign = ['-CA', file('ca.crt'), '-CAkey', file('ca.key'), '-CAcreateserial', '-extfile', extensions, '-days', '3650'];
      await run(openssl, ['x509', '-req', '-in', wish, '-out', certificate, ...sign]);
      return { certificate, key };
    },
  };
}

type Paths = [string, string, string, string];
