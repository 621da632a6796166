import type { ListObjectsV2CommandOutput } from '@aws-sdk/client-s3';
import { OciError } from '../../oci/error.ts';
import type { StoredObject } from '../store.ts';

export interface PageRequest {
  Prefix: string;
  StartAfter?: string | undefined;
  ContinuationToken?: string | undefined;
}

/** How many pages in a row may come without a key, as over many delete markers. */
const MAX_EMPTY_PAGES = 10_000;

/** Lists the objects under `prefix` and after `after`, page by page as `ask` returns them. A
 *  pruning takes missing keys for unused, so an inconsistent page ends the listing with an error,
 *  and never counts as the end.
 *
 *  Continues after the last key of a page, not from the page's token, so that keys that a page left
 *  out are listed again.
 *  @throws OciError UNAVAILABLE; what `ask` throws */
export async function* listObjects(
  { prefix, after }: { prefix: string; after: string | undefined },
  ask: (request: PageRequest) => Promise<ListObjectsV2CommandOutput>,
): AsyncGenerator<StoredObject & { key: string }> {
  let last = after;
  let token: string | undefined;
  for (let empty = 0; empty < MAX_EMPTY_PAGES;) {
    const page = await ask(token === undefined ? { Prefix: prefix, StartAfter: last } : { Prefix: prefix, ContinuationToken: token });
    const objects = readPage(page, { prefix, after: last });
    for (const object of objects) {
      last = object.key;
      yield object;
    }
    if (page.IsTruncated !== true) return;
    if (objects.length > 0) {
      token = undefined;
      empty = 0;
      continue;
    }
    const next = page.NextContinuationToken;
    if (next === undefined || next === '' || next === token)
      throw unexplained(prefix, 'it has no keys, and says that more follow but not where');
    token = next;
    empty++;
  }
  throw unexplained(prefix, `${MAX_EMPTY_PAGES} pages in a row had no keys`);
}

/** The objects of one page, checked. @throws OciError UNAVAILABLE */
function readPage(
  page: ListObjectsV2CommandOutput,
  { prefix, after }: { prefix: string; after: string | undefined },
): (StoredObject & { key: string })[] {
  const { Contents = [], IsTruncated, KeyCount, Prefix } = page;
  if (IsTruncated === undefined) throw unexplained(prefix, 'it does not say whether it is the last one');
  if (KeyCount !== undefined && KeyCount !== Contents.length)
    throw unexplained(prefix, `it has ${Contents.length} keys and says ${KeyCount}`);
  if (Prefix !== undefined && Prefix !== prefix) throw unexplained(prefix, `it is one of ${JSON.stringify(Prefix)}`);
  let last = after;
  return Contents.map(({ Key: key, Size: size, LastModified: modified }) => {
    if (key === undefined || size === undefined || modified === undefined || Number.isNaN(modified.getTime())) {
      throw unexplained(prefix, `an entry lacks its key, size or date: ${JSON.stringify({ key, size, modified })}`);
    }
    if (!key.startsWith(prefix)) throw unexplained(prefix, `it has the key ${JSON.stringify(key)}`);
    if (last !== undefined && Buffer.compare(Buffer.from(key), Buffer.from(last)) <= 0) {
      throw unexplained(prefix, `the key ${JSON.stringify(key)} is not behind ${JSON.stringify(last)}`);
    }
    last = key;
    return { key, size, modified };
  });
}

function unexplained(prefix: string, why: string): OciError {
  return new OciError('UNAVAILABLE', `a page of the listing of ${JSON.stringify(prefix)} in S3 cannot be explained: ${why}`, {
    origin: 'storage',
    retryAfter: 5,
  });
}
