import { parseInTurn } from '../async/long-steps.ts';
import { documentBytes } from '../async/byte-budget.ts';
import { MAX_MANIFEST_SIZE, OCI_INDEX, parseManifest } from '../oci/descriptor.ts';
import { splitDigest, type Digest } from '../oci/digest.ts';
import { isAbsent } from '../oci/error.ts';
import type { Repository, Tag } from '../oci/reference.ts';
import type { Referrers } from '../oci/registry.ts';
import type { Limits } from './call.ts';
import type { Reply } from './endpoint.ts';
import { UpstreamError } from './errors.ts';
import { parseNextLink, resolveNextPage } from './links.ts';
import { getManifest } from './manifests.ts';
import { mediaTypeOf, type Source } from './request.ts';
import { parseTagList, tagsOf, type TagPieces } from './tag-list.ts';

const MAX_PAGES = 1000;
/** Bytes of all pages of a tag list together. */
const MAX_LIST_SIZE = 32 * 1024 * 1024;

export interface TagPage {
  tags: TagPieces;
  next: URL | undefined;
}

/** One page of the tags of a repository. `room` is how many bytes it may have. */
async function getTagPage(
  source: Source,
  { repository, last, page, room }: { repository: Repository; last: Tag | undefined; page: URL | undefined; room: number },
  limits: Limits,
): Promise<TagPage & { size: number }> {
  const resource = `tags/list${last === undefined ? '' : `?last=${encodeURIComponent(last)}`}`;
  const reply = await source.request(
    { method: 'GET', repository, resource, page, headers: { accept: 'application/json' }, kind: 'lists', absent: 'NAME_UNKNOWN' },
    limits,
  );
  const bytes = await source.readDocument(reply, room);
  return { tags: await parseTags(bytes, source.endpoint.host), next: nextPageOf(reply, source), size: bytes.length };
}

/** @throws UpstreamError UNAVAILABLE: the answer has a link that is not a URL */
function nextPageOf(reply: Reply, { endpoint }: Source): URL | undefined {
  const link = parseNextLink(reply.headers['link']);
  if (link === undefined) return undefined;
  const next = resolveNextPage(link, reply.url, endpoint.path);
  if (next === undefined) throw new UpstreamError('object', 'UNAVAILABLE', `${endpoint.host} links to a next page whose URL is invalid`);
  return next;
}

async function parseTags(bytes: Buffer, host: string): Promise<TagPieces> {
  try {
    return await parseTagList(bytes);
  } catch (cause) {
    throw new UpstreamError('source', 'UNAVAILABLE', `${host} sends a tag list that is not JSON`, { cause });
  }
}

export interface TagPages {
  /** Fetches the first page, and returns the source that has it: all other pages come from the same
   *  source. */
  first(repository: Repository, last: Tag | undefined): Promise<{ source: Source; page: TagPage & { size: number } }>;
  /** Asks that source for another page, with retries. */
  again<T>(source: Source, work: (source: Source, limits: Limits) => Promise<T>): Promise<T>;
}

/** Asks for the first page of a list. */
export const firstTagPage = (repository: Repository, last: Tag | undefined) => async (source: Source, limits: Limits) => ({
  source,
  page: await getTagPage(source, { repository, last, page: undefined, room: MAX_LIST_SIZE }, limits),
});

/** All pages of a list in pieces, each tag once. A page must be read to its end before the next
 *  one.
 *  @throws UpstreamError UNAVAILABLE: the list does not end, or is too large */
async function* eachPage(pages: TagPages, repository: Repository, last: Tag | undefined): AsyncGenerator<Iterable<Tag[]>> {
  const { source, page: first } = await pages.first(repository, last);
  const { host } = source.endpoint;
  const seen = new Set<string>();
  const urls = new Set<string>();
  let room = MAX_LIST_SIZE;
  for (let page = first; ;) {
    const { next, tags } = page;
    const before = seen.size;
    yield freshTags(tags, seen, next === undefined);
    if (next === undefined) return;
    room -= page.size;
    const repeats = urls.has(next.href) || (seen.size === before && tags.length > 0);
    if (repeats || urls.size === MAX_PAGES)
      throw new UpstreamError('object', 'UNAVAILABLE', `${host} lists the tags of ${repository} without end`);
    urls.add(next.href);
    page = await pages.again(source, (source, limits) => getTagPage(source, { repository, last, page: next, room }, limits));
  }
}

/** The tags of a page that are not in `seen`, piece by piece. Unless it is the last page, they are
 *  added to `seen`. */
function* freshTags(pieces: TagPieces, seen: Set<string>, isLast: boolean): Generator<Tag[]> {
  for (const piece of pieces) {
    const tags = tagsOf(piece);
    const fresh = seen.size === 0 ? tags : tags.filter((tag) => !seen.has(tag));
    if (!isLast) for (const tag of fresh) seen.add(tag);
    yield fresh;
  }
}

/** All tags after `last`, even if the registry ignores `last` (Distribution 2, GCR). */
export async function* listTags(pages: TagPages, repository: Repository, last: Tag | undefined): AsyncGenerator<readonly Tag[]> {
  let held: Tag[] | undefined = last === undefined ? undefined : [];
  for await (const page of eachPage(pages, repository, last)) {
    if (held === undefined || last === undefined) {
      yield* page;
      continue;
    }
    held = held.concat(...page);
    const at = held.indexOf(last);
    // A list that holds `last`, or tags that sort before it, may be the whole one.
    if (at < 0 && held.some((tag) => tag <= last)) continue;
    yield held.slice(at + 1);
    held = undefined;
  }
  if (held === undefined || last === undefined) return;
  const sorted = held.every((tag, index) => index === 0 || (held?.[index - 1] ?? '') < tag);
  yield sorted ? held.filter((tag) => tag > last) : held; // the registry sorts differently, and began after `last`
}

/** The referrers of a digest: all pages of the referrers API, or, if the registry has none, the
 *  index under the tag that clients push instead.
 *  @throws OciError MANIFEST_INVALID: not an index, or too large */
export async function getReferrers(
  source: Source,
  { repository, digest, artifactType }: { repository: Repository; digest: Digest; artifactType: string | undefined },
  limits: Limits,
): Promise<Referrers> {
  const lease = documentBytes.lease();
  try {
    const documents = await readReferrers(source, { repository, digest, artifactType }, { ...limits, reserve: lease.reserve });
    const bytes = documents.reduce((sum, { length }) => sum + length, 0);
    return await parseInTurn(bytes, () => mergeReferrers(documents, artifactType));
  } finally {
    lease.release();
  }
}

/** Reads all pages of the referrers API. */
async function readReferrers(
  source: Source,
  { repository, digest, artifactType }: { repository: Repository; digest: Digest; artifactType: string | undefined },
  limits: Required<Limits>,
): Promise<Buffer[]> {
  const query = artifactType === undefined ? '' : `?artifactType=${encodeURIComponent(artifactType)}`;
  const documents: Buffer[] = [];
  let room = MAX_MANIFEST_SIZE;
  for (let page: URL | undefined, count = 0; ; count++) {
    const reply = await source.request(
      {
        method: 'GET',
        repository,
        resource: `referrers/${digest}${query}`,
        page,
        headers: { accept: OCI_INDEX },
        kind: 'lists',
        absent: 'NAME_UNKNOWN',
        // Registries without this API answer the first page with one of these.
        expected: count === 0 ? [200, 400, 404, 405, 406, 501] : [200],
      },
      limits,
    );
    if (reply.status !== 200 || mediaTypeOf(reply) !== OCI_INDEX) {
      reply.discard();
      if (count > 0)
        throw new UpstreamError('object', 'MANIFEST_INVALID', `${source.endpoint.host} sends a page of referrers that is not an index`);
      documents.push(await referrersByTag(source, repository, digest, limits));
      break;
    }
    const bytes = await source.readDocument(reply, room, () => limits.reserve(MAX_MANIFEST_SIZE, limits.signal));
    documents.push(bytes);
    room -= bytes.length;
    page = nextPageOf(reply, source);
    if (page === undefined) break;
    if (count === MAX_PAGES) throw new UpstreamError('object', 'UNAVAILABLE', `${source.endpoint.host} lists referrers without end`);
  }
  return documents;
}

const EMPTY_INDEX = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [] }));

/** The index that clients push as a tag if there is no referrers API (distribution specification,
 *  "Referrers Tag Schema"). */
async function referrersByTag(source: Source, repository: Repository, digest: Digest, limits: Limits): Promise<Buffer> {
  const { algorithm, hex } = splitDigest(digest);
  const tag = `${algorithm.slice(0, 32)}-${hex.slice(0, 64)}` as Tag;
  try {
    return Buffer.from((await getManifest(source, repository, tag, limits)).bytes);
  } catch (error) {
    if (isAbsent(error) && source.isOrigin) return EMPTY_INDEX; // a mirror may merely lack it
    throw error;
  }
}

/** Merges all pages into one index, of the entries with `artifactType` if that is given. */
function mergeReferrers(documents: readonly Buffer[], artifactType: string | undefined): Referrers {
  for (const bytes of documents) parseManifest(bytes, OCI_INDEX);
  const [only] = documents;
  const filtersApplied = artifactType !== undefined;
  if (documents.length === 1 && only !== undefined && !filtersApplied) return { index: only, filtersApplied };
  const pages = documents.map((bytes) => JSON.parse(bytes.toString()) as { manifests?: { artifactType?: string; digest?: string }[] });
  const entries = pages
    .flatMap(({ manifests = [] }) => manifests)
    .filter((entry) => !filtersApplied || entry.artifactType === artifactType);
  const manifests = [...new Map(entries.map((entry) => [entry.digest, entry])).values()];
  return { index: Buffer.from(JSON.stringify({ ...pages[0], manifests })), filtersApplied };
}
