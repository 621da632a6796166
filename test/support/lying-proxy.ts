import { once } from 'node:events';
import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** The fault of one request. */
export type Lie =
  | { answer: number; type: 'html' | 'xml' | 'none'; code?: string }
  /** The answer is cut in the middle of its body. */
  | 'cut'
  /** A listing page has only its first keys; its other fields are unchanged. */
  | 'keys-missing'
  /** A listing page has only its first keys, and correctly says that more follow. */
  | 'short-page'
  /** A listing page has only its first keys, and nothing shows it. */
  | 'keys-hidden'
  /** A listing page is well-formed, and has no keys. */
  | 'empty-page';

export interface LyingProxy extends AsyncDisposable {
  url: string;
  /** Called for each request; undefined: it is passed on. */
  lie: (request: { method: string; path: string; isListing: boolean }) => Lie | undefined;
}

/** A proxy in front of an S3 server with the faults of a bad gateway. It does not change the Host
 *  header, which S3's signatures cover. */
export async function startLyingProxy(target: string): Promise<LyingProxy> {
  const { hostname, port } = new URL(target);
  const server = createServer((incoming, outgoing) => void pass(incoming, outgoing).catch(() => outgoing.destroy()));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');

  async function pass(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const { method = '', url: path = '', headers } = incoming;
    const isListing = path.includes('list-type=2');
    const lie = self.lie({ method, path, isListing });
    if (typeof lie === 'object') {
      incoming.resume();
      answer(outgoing, lie);
      return;
    }
    const inner = request({ host: hostname, port, method, path, headers });
    incoming.pipe(inner);
    const [given] = (await once(inner, 'response')) as [IncomingMessage];
    const chunks: Buffer[] = [];
    for await (const chunk of given) chunks.push(chunk as Buffer);
    let body = Buffer.concat(chunks);
    if (isListing && lie !== undefined && lie !== 'cut') body = Buffer.from(rewrite(body.toString(), lie));
    const length = method === 'HEAD' ? given.headers['content-length'] : body.length;
    outgoing.writeHead(given.statusCode ?? 502, { ...given.headers, ...(length === undefined ? {} : { 'content-length': length }) });
    if (lie !== 'cut') outgoing.end(body);
    else outgoing.write(body.subarray(0, body.length / 2), () => outgoing.destroy());
  }

  const self: LyingProxy = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    lie: () => undefined,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
  return self;
}

function answer(outgoing: ServerResponse, { answer: status, type, code = 'InternalError' }: Extract<Lie, object>): void {
  if (type === 'none') outgoing.writeHead(status, { 'content-length': '0' }).end();
  else if (type === 'html') outgoing.writeHead(status, { 'content-type': 'text/html' }).end('<html><body><hr></body></html>');
  else {
    const headers = { 'content-type': 'application/xml', 'x-amz-request-id': '1' };
    outgoing.writeHead(status, headers).end(`<Error><Code>${code}</Code><Message>a bad day</Message></Error>`);
  }
}

/** A page with the first half of its keys, or with none. */
function rewrite(page: string, lie: 'keys-missing' | 'short-page' | 'keys-hidden' | 'empty-page'): string {
  const entries = page.match(/<Contents>.*?<\/Contents>/gs) ?? [];
  if (entries.length === 0) return page;
  const left = lie === 'empty-page' ? [] : entries.slice(0, Math.floor(entries.length / 2));
  const [first = ''] = entries;
  const at = page.indexOf(first);
  const rest = page.replace(/<Contents>.*?<\/Contents>/gs, '');
  const short = rest.slice(0, at) + left.join('') + rest.slice(at);
  if (lie === 'keys-missing') return short;
  if (lie === 'short-page' && left.length === 0) return page; // without a key to go on from, nothing would show it
  const counted = short.replace(/<KeyCount>\d+<\/KeyCount>/, `<KeyCount>${left.length}</KeyCount>`);
  if (lie === 'keys-hidden' || lie === 'empty-page') return counted;
  return counted
    .replace(/<IsTruncated>false<\/IsTruncated>/, '<IsTruncated>true</IsTruncated>')
    .replace('</ListBucketResult>', '<NextContinuationToken>elsewhere</NextContinuationToken></ListBucketResult>');
}
