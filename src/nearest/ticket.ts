import { createHmac, timingSafeEqual } from 'node:crypto';
import { isDigest, type Digest } from '../oci/digest.ts';

/** The claims of a ticket, which allows reading one blob from one node for a limited time. */
export interface TicketClaims {
  digest: Digest;
  /** `IP:port` of the node. */
  address: string;
  /** The size of the blob, in bytes. */
  size: number;
}

/** The lifetime of a ticket. It is used at once; the rest allows for clocks that differ. A transfer
 *  that has started may take longer. */
const LIFE_SECONDS = 300;
const PATH = '/shared/';
const HMAC_HEX = /^[0-9a-f]{64}$/;

/** The URL of a blob at a node: HMAC-SHA-256, with the node's own key, over digest, address, size
 *  and expiry.
 *  @param now in ms since the epoch */
export function ticketUrl(claims: TicketClaims, key: string, now = Date.now()): string {
  const until = Math.floor(now / 1000) + LIFE_SECONDS;
  const query = new URLSearchParams({ size: String(claims.size), until: String(until), ticket: sign(claims, key, until) });
  return `http://${claims.address}${PATH}${claims.digest}?${query.toString()}`;
}

/** Checks the request target of a ticket's URL at the node `address`.
 *  @returns undefined: it is not a ticket, not for this node, forged, or expired */
export function readTicket(
  target: string,
  { address, key, now = Date.now() }: { address: string; key: string; now?: number },
): TicketClaims | undefined {
  const question = target.indexOf('?');
  if (question < 0 || !target.startsWith(PATH)) return undefined;
  const digest = target.slice(PATH.length, question);
  const fields = new URLSearchParams(target.slice(question + 1));
  const size = Number(fields.get('size'));
  const until = Number(fields.get('until'));
  const given = fields.get('ticket') ?? '';
  if (!isDigest(digest) || !Number.isSafeInteger(size) || size <= 0 || !Number.isSafeInteger(until) || !HMAC_HEX.test(given))
    return undefined;
  const claims = { digest, address, size };
  const right = timingSafeEqual(Buffer.from(given), Buffer.from(sign(claims, key, until)));
  return right && until >= now / 1000 ? claims : undefined;
}

/** Proves that a node has the key sent with its address, without revealing the key. */
export function proveKey(key: string, nonce: string): string {
  return createHmac('sha256', key).update(`node ${nonce}`).digest('hex');
}

function sign({ digest, address, size }: TicketClaims, key: string, until: number): string {
  return createHmac('sha256', key).update(`blob ${digest} ${address} ${size} ${until}`).digest('hex');
}
