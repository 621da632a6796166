import { createHash, type Hash } from 'node:crypto';
import { setImmediate as turn } from 'node:timers/promises';
import { OciError } from './error.ts';

declare const digestBrand: unique symbol;

/** `sha256:<64 hex>` or `sha512:<128 hex>`, lower case: the two registered algorithms of the image
 *  specification. */
export type Digest = string & { readonly [digestBrand]: true };
export type DigestAlgorithm = 'sha256' | 'sha512';

/** Hashed in one step, which takes one to three milliseconds. */
const HASHED_PER_TURN_BYTES = 2 ** 19;
const DIGEST = /^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/;

/** @throws OciError DIGEST_INVALID */
export function parseDigest(text: string): Digest {
  if (!isDigest(text)) {
    throw new OciError(
      'DIGEST_INVALID',
      `not a digest: ${JSON.stringify(text.slice(0, 160))}; write sha256:<64 lower-case hex digits> or sha512:<128>`,
    );
  }
  return text;
}

export function isDigest(text: string): text is Digest {
  return DIGEST.test(text);
}

/** The algorithm and the hexadecimal part of a digest. */
export function splitDigest(digest: Digest): { algorithm: DigestAlgorithm; hex: string } {
  return { algorithm: digest.slice(0, 6) as DigestAlgorithm, hex: digest.slice(7) };
}

export function createDigestHash(digest: Digest): Hash {
  return createHash(splitDigest(digest).algorithm);
}

/** Finishes `hash`. True if it matches `digest`. */
export function agrees(hash: Hash, digest: Digest): boolean {
  return hash.digest('hex') === splitDigest(digest).hex;
}

/** The digest of a document that may be large: hashed in pieces, so that other events are handled
 *  in between. */
export async function digestInPieces(bytes: Uint8Array, algorithm: DigestAlgorithm = 'sha256'): Promise<Digest> {
  const hash = createHash(algorithm);
  for (let start = 0; start < bytes.length; start += HASHED_PER_TURN_BYTES) {
    if (start > 0) await turn();
    hash.update(bytes.subarray(start, start + HASHED_PER_TURN_BYTES));
  }
  return `${algorithm}:${hash.digest('hex')}` as Digest;
}

export function digestOf(bytes: Uint8Array, algorithm: DigestAlgorithm = 'sha256'): Digest {
  return `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}` as Digest;
}
