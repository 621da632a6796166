import { createHash } from 'node:crypto';

/** A short name for content: the same content, the same name. */
export function fingerprint(...content: (string | Uint8Array)[]): string {
  const hash = createHash('sha256');
  for (const part of content) hash.update(part);
  return hash.digest('hex').slice(0, 16);
}
