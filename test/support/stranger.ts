import { AGENT_HEADER, formatOffer, formatReport, PLACE_HEADER, REPORT_HEADER } from '../../src/nearest/agreement.ts';
import { parseDigest } from '../../src/oci/digest.ts';

export interface Directions {
  status: number;
  /** Where the registry sends it; empty: nowhere. */
  location: string;
  place: string | null;
}

let strangers = 0;

/** Asks the registry for a blob as a new node that cannot be reached. Then it reports that it has
 *  given up, so that it does not count as a reader of the node that it was sent to.
 *  @param header in place of the node's own one */
export async function askAsStranger(blobUrl: string, header?: string): Promise<Directions> {
  const node = { address: `127.0.99.${(++strangers % 250) + 1}:1`, key: 'x'.repeat(43), zone: '', keep: 60 };
  const offer = header ?? formatOffer({ node, s3: false, away: [], failed: undefined });
  const response = await fetch(blobUrl, { headers: { [AGENT_HEADER]: offer }, redirect: 'manual' });
  await response.body?.cancel();
  const digest = parseDigest(blobUrl.slice(blobUrl.lastIndexOf('/') + 1));
  const report = formatReport({ node, digest, outcome: 'failed', from: undefined, milliseconds: 1 });
  await fetch(new URL('/v2/', blobUrl), { headers: { [REPORT_HEADER]: report } });
  return { status: response.status, location: response.headers.get('location') ?? '', place: response.headers.get(PLACE_HEADER) };
}
