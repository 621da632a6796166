import { randomBytes } from 'node:crypto';
import { createServer, type ServerResponse } from 'node:http';
import { AGENT_HEADER, formatOffer, formatReport, REPORT_HEADER, type SharingNode } from '../../src/nearest/agreement.ts';
import { proveKey } from '../../src/nearest/ticket.ts';
import { parseDigest } from '../../src/oci/digest.ts';
import { listenOnLoopback } from './http.ts';

/** A scripted node, for behaviour that a correct node never shows. */
export interface FakeNode extends AsyncDisposable {
  node: SharingNode;
  /** Requests for blobs. */
  asked: number;
  /** Answers a request for a blob. */
  give: (response: ServerResponse, size: number) => void;
  /** Answers nothing any more, like a machine that has lost its power. */
  dead: boolean;
  /** Has the registry believe that this node has a blob. @returns the status of the registry's
   *  answer */
  claim(blobUrl: string): Promise<number>;
}

export async function startFakeNode(host = '127.0.0.1'): Promise<FakeNode> {
  const key = randomBytes(32).toString('base64url');
  const server = createServer((request, response) => {
    if (fake.dead) return;
    const url = new URL(request.url ?? '', 'http://node');
    if (url.pathname === '/alive') {
      response.end(proveKey(key, url.searchParams.get('nonce') ?? ''));
    } else {
      fake.asked++;
      fake.give(response, Number(url.searchParams.get('size')));
    }
  });
  const listening = await listenOnLoopback(server, host);
  const fake: FakeNode = {
    node: { address: new URL(listening.url).host, key, zone: '', keep: 600 },
    asked: 0,
    give: (response) => void response.destroy(),
    dead: false,
    async claim(blobUrl) {
      const { node } = fake;
      const headers = { [AGENT_HEADER]: formatOffer({ node, s3: false, away: [], failed: undefined }) };
      const { status, body } = await fetch(blobUrl, { headers, redirect: 'manual' });
      await body?.cancel();
      const digest = parseDigest(blobUrl.slice(blobUrl.lastIndexOf('/') + 1));
      const report = formatReport({ node, digest, outcome: 'whole', from: undefined, milliseconds: 1000 });
      await fetch(new URL('/v2/', blobUrl), { headers: { [REPORT_HEADER]: report } });
      return status;
    },
    [Symbol.asyncDispose]: () => listening[Symbol.asyncDispose](),
  };
  return fake;
}
