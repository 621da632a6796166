import { OCI_INDEX } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import type { Reference, Repository, Tag } from '../oci/reference.ts';
import type { Blob, Registry } from '../oci/registry.ts';
import { headersOf, isKnown, sendBytes, sendNotModified, type Exchange } from './exchange.ts';
import { createHeldDocuments } from './held-documents.ts';
import type { TagsPage } from './parse-request.ts';
import { sendBody, type SendOptions } from './send.ts';
import { sharedDocuments } from './shared-documents.ts';

/** Answers GET and HEAD of the documents of a registry. Every method throws OciError as the method
 *  of `Registry` does, and TOOMANYREQUESTS. */
export interface DocumentHandlers {
  manifest(this: void, exchange: Exchange, repository: Repository, reference: Reference): Promise<void>;
  tags(this: void, exchange: Exchange, repository: Repository, asked: { repository: Repository; page: TagsPage }): Promise<void>;
  referrers(
    this: void,
    exchange: Exchange,
    repository: Repository,
    asked: { digest: Digest; artifactType: string | undefined },
  ): Promise<void>;
}

/** Manifests, tag lists and lists of referrers from `registry`. Those that are large are held in
 *  memory for a limited number of slow clients. */
export function serveDocuments(registry: Registry, { fileSender }: Pick<SendOptions, 'fileSender'>): DocumentHandlers {
  const shared = sharedDocuments(registry);
  const held = createHeldDocuments();

  function send(exchange: Exchange, headers: string[], bytes: Uint8Array): void {
    if (!exchange.head) held.require(bytes, exchange.response);
    sendBytes(exchange, headers, bytes);
  }

  /** Sends a manifest from its file, which takes little memory however slow the client is. */
  async function sendCopy(exchange: Exchange, headers: string[], { body, length }: { body: Blob['body']; length: number }): Promise<void> {
    exchange.response.writeHead(200, headers);
    exchange.bytes = (await sendBody(exchange.response, body, { length, fileSender })).bytes;
  }

  return {
    async manifest(exchange, repository, reference) {
      const { head, context, response } = exchange;
      if (head) return answerHead(registry, exchange, { repository, reference });
      const { descriptor, bytes, stale, open } = await registry.manifest(repository, reference, context);
      exchange.stale = stale;
      exchange.digest = descriptor.digest;
      if (isKnown(exchange, descriptor.digest)) return sendNotModified(exchange, descriptor.digest);
      const headers = headersOf(exchange, descriptor);
      if (stale) headers.push('Warning', '110 - "Response is Stale"');
      const isHeld = open === undefined || held.hold(bytes, response);
      const copy = isHeld ? undefined : await open(context);
      if (copy === undefined) return send(exchange, headers, bytes);
      return sendCopy(exchange, headers, { body: copy.body, length: bytes.length }); // not awaited: this function would hold the bytes
    },

    async tags(exchange, repository, asked) {
      const { bytes, next } = await shared.tagList(repository, asked, exchange.context);
      const headers = [...exchange.headers, 'Content-Type', 'application/json; charset=utf-8', 'Content-Length', String(bytes.length)];
      if (next !== undefined) headers.push('Link', `<${nextPage(exchange, asked.page.n ?? 0, next)}>; rel="next"`);
      send(exchange, headers, bytes);
    },

    async referrers(exchange, repository, { digest, artifactType }) {
      const context = artifactType === undefined ? exchange.context : { ...exchange.context, artifactType };
      const { index, filtersApplied } = await shared.referrers(repository, digest, context);
      const headers = [...exchange.headers, 'Content-Type', OCI_INDEX, 'Content-Length', String(index.length)];
      if (filtersApplied) headers.push('OCI-Filters-Applied', 'artifactType');
      send(exchange, headers, index);
    },
  };
}

async function answerHead(
  registry: Registry,
  exchange: Exchange,
  { repository, reference }: { repository: Repository; reference: Reference },
): Promise<void> {
  const descriptor = await registry.resolve(repository, reference, exchange.context);
  exchange.digest = descriptor.digest;
  if (isKnown(exchange, descriptor.digest)) return sendNotModified(exchange, descriptor.digest);
  exchange.response.writeHead(200, headersOf(exchange, descriptor)).end();
}

/** Relative, so that it is valid for any host name and port that clients use. */
function nextPage({ request }: Exchange, n: number, last: Tag): string {
  const [path = '', query] = (request.url ?? '').split('?', 2);
  const parameters = new URLSearchParams(query);
  parameters.set('n', String(n));
  parameters.set('last', last);
  return `${path}?${parameters.toString()}`;
}
