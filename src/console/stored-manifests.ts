import { json } from 'node:stream/consumers';
import { inParallel } from '../async/parallel.ts';
import { fieldsOf, textOf } from '../io/untrusted.ts';
import type { ManifestContent } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import { formatPlatform } from '../oci/platform.ts';
import { blobKey } from '../store/keys.ts';
import type { Store } from '../store/store.ts';
import type { BlobTable } from '../upkeep/blob-table.ts';
import { readManifest } from '../upkeep/inventory.ts';

/** The console's data about a stored manifest: about 200 bytes, so that 100,000 of them fit into a
 *  registry's memory. */
export interface StoredManifest {
  /** Bytes of the manifest and its stored blobs; of an index, bytes of the index alone. */
  size: number;
  /** The same when all of its blobs are stored. */
  wholeSize: number;
  /** The manifests that an index names; undefined: this is not an index. */
  children: readonly { digest: Digest; platform: string }[] | undefined;
  /** The platform of an image without an index, such as linux/amd64; '' if its config does not
   *  state one. */
  platform: string;
  /** Whether all of its blobs are stored. */
  complete: boolean;
  /** Whether it refers to another manifest, as a signature does. */
  isReferrer: boolean;
}

const READS_AT_ONCE = 16;
/** A config contains the history of an image; larger ones are not read. */
const MAX_CONFIG_BYTES = 2 ** 20;

/** Reads the manifests that are not in `known`, or were incomplete.
 *  @param digests digests that may be manifests
 *  @throws OciError UNAVAILABLE: the store does not answer */
export async function readManifests(
  store: Store,
  digests: Iterable<Digest>,
  { known, blobs, signal, progress }: ReadOptions,
): Promise<Map<Digest, StoredManifest>> {
  const found = new Map<Digest, StoredManifest>();
  const unread: Digest[] = [];
  for (const digest of digests) {
    const before = known.get(digest);
    if (before?.complete === true && blobs.find(digest) !== -1) found.set(digest, before);
    else unread.push(digest);
  }
  let done = 0;
  await inParallel(unread, READS_AT_ONCE, async (digest) => {
    const content = blobs.find(digest) === -1 ? undefined : await readManifest(store, digest, { signal });
    progress(++done, unread.length);
    if (content === undefined || content === 'corrupt' || content.manifests.length + content.blobs.length === 0) return;
    found.set(digest, await summarize(store, { digest, content, blobs }, signal));
  });
  return found;
}

export interface ReadOptions {
  /** The previous result of this function. */
  known: ReadonlyMap<Digest, StoredManifest>;
  blobs: BlobTable;
  signal: AbortSignal;
  progress(this: void, done: number, total: number): void;
}

interface Read {
  digest: Digest;
  content: ManifestContent;
  blobs: BlobTable;
}

async function summarize(store: Store, { digest, content, blobs }: Read, signal: AbortSignal): Promise<StoredManifest> {
  const stored = [digest, ...new Set(content.blobs.map((blob) => blob.digest))].map((one) => blobs.find(one));
  const size = stored.reduce((sum, blob) => sum + (blob === -1 ? 0 : blobs.size(blob)), 0);
  const [own] = stored;
  const sizes = new Map(content.blobs.map((blob) => [blob.digest, blob.size]));
  const isIndex = content.manifests.length > 0;
  return {
    size,
    wholeSize: (own === undefined || own === -1 ? 0 : blobs.size(own)) + [...sizes.values()].reduce((sum, one) => sum + one, 0),
    children: isIndex ? content.manifests.map((own) => ({ digest: own.digest, platform: formatPlatform(own.platform) })) : undefined,
    platform: isIndex ? '' : await readPlatform(store, { content, blobs }, signal),
    complete: !stored.includes(-1),
    isReferrer: content.subject !== undefined,
  };
}

/** The platform in an image's config. */
async function readPlatform(store: Store, { content, blobs }: Pick<Read, 'content' | 'blobs'>, signal: AbortSignal): Promise<string> {
  const [config] = content.blobs;
  const blob = config === undefined ? -1 : blobs.find(config.digest);
  if (config === undefined || blob === -1 || blobs.size(blob) > MAX_CONFIG_BYTES || !/config|image/.test(config.mediaType)) return '';
  const found = await store.read(blobKey(config.digest), { signal });
  if (found === undefined) return '';
  try {
    const fields = fieldsOf(await json(found.body));
    const [os, architecture, variant] = ['os', 'architecture', 'variant'].map((name) => textOf(fields[name]));
    if (os === undefined || architecture === undefined) return '';
    return formatPlatform({ os, architecture, ...(variant === undefined || variant === '' ? {} : { variant }) });
  } catch (error) {
    if (error instanceof SyntaxError) return ''; // no image, but an artifact
    throw error;
  }
}
