import { createHash } from 'node:crypto';

/** @returns 16 hexadecimal digits of the content's SHA-256 */
export function fingerprint(...content: (string | Uint8Array)[]): string {
  const hash = createHash('sha256');
  for (const part of content) hash.update(part);
  return hash.digest('hex').slice(0, 16);
}
