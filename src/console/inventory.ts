import { inParallel } from '../async/parallel.ts';
import type { Digest } from '../oci/digest.ts';
import type { Repository, Tag } from '../oci/reference.ts';
import { BLOBS, isManifestRecord, parseBlobKey, parseRepositoryKey, parseUsedKey, REPOSITORIES, USES } from '../store/keys.ts';
import type { Store } from '../store/store.ts';
import { createBlobTable, type BlobTable } from '../upkeep/blob-table.ts';
import { readTag } from '../upkeep/tags.ts';
import { readManifests, type StoredManifest } from './stored-manifests.ts';

/** A tag, as recorded. */
export interface StoredTag {
  digest: Digest;
  /** When the upstream was last asked about the tag, or its record was last written, in ms since
   *  the epoch. */
  checkedAt: number;
  /** When the upstream deleted the tag (ISO 8601); undefined: it has not. */
  goneSince: string | undefined;
}

/** An image in one repository, with one of its tags. */
export interface StoredImage {
  repository: Repository;
  /** Undefined: no tag names it. */
  tag: Tag | undefined;
  digest: Digest;
  /** Bytes that are stored. */
  size: number;
  /** Bytes when its platforms are completely stored; undefined: no platform is known. */
  wholeSize: number | undefined;
  platforms: readonly string[];
  complete: boolean;
  /** Milliseconds since the epoch; 0: no pull is recorded. */
  lastUsed: number;
  /** ISO 8601. */
  goneSince: string | undefined;
}

/** The images of a store, sorted by name. */
export interface StoredImages {
  images: readonly StoredImage[];
  manifests: ReadonlyMap<Digest, StoredManifest>;
  tags: ReadonlyMap<string, StoredTag>;
  blobs: number;
  /** Bytes of all blobs. */
  bytes: number;
  /** The store has more images than the list. */
  truncated: boolean;
}

export interface ListOptions {
  /** The previous list; unchanged entries are not read again. */
  before: StoredImages | undefined;
  signal: AbortSignal;
  /** @param share of the work, from 0 to 1 */
  progress(this: void, share: number): void;
}

/** With 300 bytes per image, a registry with 1 GiB of memory can afford this. */
const MAX_IMAGES = 300_000;
const READS_AT_ONCE = 16;

/** Lists the images of a store. Manifests and records of tags that were read before and have not
 *  changed are not read again.
 *  @throws OciError UNAVAILABLE: the store cannot be listed or read */
export async function listStoredImages(store: Store, { before, signal, progress }: ListOptions): Promise<StoredImages> {
  const blobs = await listBlobs(store, signal);
  progress(0.1);
  const { tagged, members, truncated } = await listRecords(store, blobs, signal);
  progress(0.2);
  const lastUses = await listUses(store, signal);
  progress(0.3);
  const tags = await readTags(store, tagged, { known: before?.tags ?? new Map<string, StoredTag>(), signal });
  progress(0.5);
  const digests = new Set([...members.values()].flat());
  const manifests = await readManifests(store, digests, {
    known: before?.manifests ?? new Map<Digest, StoredManifest>(),
    blobs,
    signal,
    progress: (done, total) => progress(0.5 + (0.45 * done) / Math.max(1, total)),
  });
  const images = await composeImages({ members, manifests, tags, tagged, lastUses });
  return { images, manifests, tags, blobs: blobs.count(), bytes: blobs.bytes(), truncated };
}

async function listBlobs(store: Store, signal: AbortSignal): Promise<BlobTable> {
  const blobs = createBlobTable();
  for await (const { key, size, modified } of store.list(BLOBS, { signal })) {
    const digest = parseBlobKey(key);
    if (digest !== undefined) blobs.add(digest, size, modified.getTime());
  }
  return blobs;
}

interface Records {
  /** The tags of each repository, and when their records were written. */
  tagged: Map<Repository, { tag: Tag; modified: number }[]>;
  /** The digests of each repository that may be manifests. */
  members: Map<Repository, Digest[]>;
  truncated: boolean;
}

async function listRecords(store: Store, blobs: BlobTable, signal: AbortSignal): Promise<Records> {
  const tagged: Records['tagged'] = new Map();
  const members: Records['members'] = new Map();
  let count = 0;
  for await (const { key, size, modified } of store.list(REPOSITORIES, { signal })) {
    const record = parseRepositoryKey(key);
    if (record === undefined || 'subject' in record) continue;
    const { repository } = record;
    if ('tag' in record) append(tagged, repository, { tag: record.tag, modified: modified.getTime() });
    else if (isManifestRecord(size) && blobs.find(record.member) !== -1) append(members, repository, record.member);
    if (++count >= 4 * MAX_IMAGES) break;
  }
  return { tagged, members, truncated: count >= 4 * MAX_IMAGES };
}

/** The last recorded use of each image, by `repository@digest`, in ms since the epoch. */
async function listUses(store: Store, signal: AbortSignal): Promise<Map<string, number>> {
  const uses = new Map<string, number>();
  for await (const { key, modified } of store.list(USES, { signal })) {
    const use = parseUsedKey(key);
    if (use === undefined) continue;
    const image = `${use.repository}@${use.digest}`;
    uses.set(image, Math.max(uses.get(image) ?? 0, modified.getTime()));
  }
  return uses;
}

async function readTags(
  store: Store,
  tagged: Records['tagged'],
  { known, signal }: { known: ReadonlyMap<string, StoredTag>; signal: AbortSignal },
): Promise<Map<string, StoredTag>> {
  const tags = new Map<string, StoredTag>();
  function* records() {
    for (const [repository, own] of tagged) for (const { tag, modified } of own) yield { repository, tag, modified };
  }
  await inParallel(records(), READS_AT_ONCE, async ({ repository, tag, modified }) => {
    const name = `${repository}:${tag}`;
    const before = known.get(name);
    if (before?.checkedAt === modified) {
      tags.set(name, before);
      return;
    }
    const content = await readTag(store, { repository, tag }, { signal });
    if (content !== undefined) tags.set(name, { ...content, checkedAt: modified });
  });
  return tags;
}

interface Composed extends Pick<Records, 'members' | 'tagged'> {
  manifests: ReadonlyMap<Digest, StoredManifest>;
  tags: ReadonlyMap<string, StoredTag>;
  lastUses: ReadonlyMap<string, number>;
}

/** How many repositories are processed in one turn of the event loop. */
const REPOSITORIES_A_TURN = 200;

async function composeImages({ members, manifests, tags, tagged, lastUses }: Composed): Promise<StoredImage[]> {
  const images: StoredImage[] = [];
  let turn = 0;
  for (const repository of [...new Set([...members.keys(), ...tagged.keys()])].sort()) {
    if (++turn % REPOSITORIES_A_TURN === 0) await new Promise(setImmediate);
    const own = new Set(members.get(repository));
    const named = new Set([...own].flatMap((digest) => manifests.get(digest)?.children?.map((child) => child.digest) ?? []));
    const untagged = new Set([...own].filter((digest) => !named.has(digest) && manifests.get(digest)?.isReferrer === false));
    for (const { tag } of tagged.get(repository) ?? []) {
      const found = tags.get(`${repository}:${tag}`);
      const manifest = found === undefined ? undefined : manifests.get(found.digest);
      if (found === undefined || manifest === undefined) continue;
      untagged.delete(found.digest);
      images.push(imageOf({ repository, tag, digest: found.digest, goneSince: found.goneSince }));
    }
    for (const digest of untagged) images.push(imageOf({ repository, tag: undefined, digest, goneSince: undefined }));
  }
  return images;

  function imageOf(name: Pick<StoredImage, 'repository' | 'tag' | 'digest' | 'goneSince'>): StoredImage {
    const manifest = manifests.get(name.digest);
    const parts = (manifest?.children ?? []).flatMap(({ digest, platform }) => {
      const part = manifests.get(digest);
      return part === undefined ? [] : [{ ...part, platform: platform === '' ? part.platform : platform }];
    });
    const isIndex = manifest?.children !== undefined;
    const isUnknown = manifest === undefined || (isIndex && parts.length === 0);
    return {
      ...name,
      size: (manifest?.size ?? 0) + parts.reduce((sum, part) => sum + part.size, 0),
      wholeSize: isUnknown ? undefined : parts.reduce((sum, part) => sum + part.wholeSize, manifest.wholeSize),
      platforms: platformsOf(isIndex ? parts : manifest === undefined ? [] : [manifest]),
      complete: isIndex ? parts.length > 0 && parts.every((part) => part.complete) : manifest?.complete === true,
      lastUsed: lastUses.get(`${name.repository}@${name.digest}`) ?? 0,
    };
  }
}

const lists = new Map<string, readonly string[]>();
/** Shared lists of platforms. */
const MAX_LISTS = 1000;

/** Most images have the same few platforms, so they share one list. */
function platformsOf(parts: readonly { platform: string }[]): readonly string[] {
  const own = [...new Set(parts.map(({ platform }) => platform).filter((name) => name !== ''))].sort();
  const key = own.join(' ');
  const known = lists.get(key);
  if (known !== undefined) return known;
  if (lists.size < MAX_LISTS) lists.set(key, own);
  return own;
}

function append<Key, Value>(map: Map<Key, Value[]>, key: Key, value: Value): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [value]);
  else list.push(value);
}
