import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { debianTool } from '../tools/tools.ts';

const run = promisify(execFile);

/** A certificate for 127.0.0.1, ::1 and these DNS names that signs itself, and its key: paths of
 *  PEM files in `directory`. */
export async function makeCertificate(directory: string, names: readonly string[] = []): Promise<{ certificate: string; key: string }> {
  const [certificate, key] = [join(directory, 'tls.crt'), join(directory, 'tls.key')];
  const alternatives = ['IP:127.0.0.1', 'IP:::1', ...names.map((name) => `DNS:${name}`)].join();
  const subject = ['-subj', '/CN=test', '-addext', `subjectAltName=${alternatives}`, '-days', '2', '-nodes'];
  const algorithm = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256'];
  await run(await debianTool('openssl'), ['req', '-x509', ...algorithm, '-keyout', key, '-out', certificate, ...subject]);
  return { certificate, key };
}
