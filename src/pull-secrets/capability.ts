import { createHmac } from 'node:crypto';

/** Length of the id in bytes: 128 bits. */
const ID_BYTES = 16;
const ALPHABET = 'abcdefghijklmnopqrstuvwxyz234567';

/** The capability of an entry of a pull secret (docs/decisions/private-names.md): it can be
 *  computed only with `key`, is the same in every process with the key, and becomes invalid with
 *  the Secret, since a UID is never used again.
 *  @returns 26 characters, which may be part of a repository's name */
export function idOf({ uid, registry }: { uid: string; registry: string }, key: string): string {
  return base32(createHmac('sha256', key).update(`${uid}\0${registry}`).digest().subarray(0, ID_BYTES));
}

/** Lower-case base32 without padding (RFC 4648, section 6). */
function base32(bytes: Uint8Array): string {
  let text = '';
  let [bits, count] = [0, 0];
  for (const byte of bytes) {
    bits = (bits << 8) | byte;
    for (count += 8; count >= 5; count -= 5) text += ALPHABET[(bits >>> (count - 5)) & 31];
    bits &= (1 << count) - 1;
  }
  return count === 0 ? text : text + ALPHABET[(bits << (5 - count)) & 31];
}
