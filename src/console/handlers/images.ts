import type { Digest } from '../../oci/digest.ts';
import { withoutCapability } from '../../oci/capability.ts';
import type { Repository } from '../../oci/reference.ts';
import type { Store } from '../../store/store.ts';
import type { KeepReason } from '../../upkeep/keep.ts';
import type { ImageDetail, ImageRow } from '../api/images.ts';
import { ApiFailure, type ApiHandlers } from '../api-server.ts';
import { createImageSearch, type ImageFacts, type ImageSearch } from '../image-search.ts';
import type { InventoryService } from '../inventory-service.ts';
import type { StoredImage, StoredImages } from '../inventory.ts';
import type { Pins } from '../../upkeep/pins.ts';
import type { Pods } from '../pods-service.ts';
import { describePlatforms, readContent } from './image-content.ts';

export interface ImagesOptions {
  inventory: InventoryService;
  pods: Pods<unknown>;
  pins: Pins;
  store: Store;
  /** The usual name of a repository: docker.io/library/nginx. */
  nameOf(this: void, repository: Repository): string;
  /** Why pruning keeps an image, apart from pods and pins. */
  keptBy(this: void, image: Pick<StoredImage, 'repository' | 'tag' | 'digest'>): KeepReason | undefined;
  /** The rule of registry.policy that refuses an image; undefined: it is allowed. */
  deniedBy(this: void, image: Pick<StoredImage, 'repository' | 'tag' | 'digest'>): string | undefined;
  firstSeen(this: void, digest: Digest, signal: AbortSignal): Promise<number | undefined>;
}

/** At most this many pods of an image are listed. */
const MAX_PODS = 200;

/** The stored images: a page of them, and one in detail. */
export function createImagesHandlers(options: ImagesOptions): Pick<ApiHandlers, 'images' | 'image'> {
  const { inventory, pods } = options;
  const facts: ImageFacts = {
    podsOf: (image) => pods.usesOf({ ...image, tag: image.tag })?.length,
    isKept: (image) => keptBy(image, options) !== undefined,
    isDenied: (image) => options.deniedBy(image) !== undefined,
    nameOf: ({ repository }) => options.nameOf(repository),
  };
  const searchOf = createSearches(options, facts);
  inventory.onListed(searchOf);

  return {
    async images({ query, signal }) {
      await refresh(options, signal);
      const stored = inventory.current();
      const podsProblem = pods.problem() ?? null;
      if (stored === undefined) {
        return { images: [], total: 0, totalBytes: 0, offset: query.offset, takenAt: null, podsProblem, upstreams: [], truncated: false };
      }
      const found = searchOf(stored);
      const { images, total, totalBytes } = found.find(query);
      return {
        images: images.map((image) => rowOf(image, options)),
        total,
        totalBytes,
        offset: query.offset,
        takenAt: inventory.state().takenAt,
        podsProblem,
        upstreams: [...found.upstreams],
        truncated: stored.truncated,
      };
    },

    async image({ query, signal }) {
      await refresh(options, signal);
      return detailOf(query, options, signal);
    },
  };
}

async function refresh({ inventory, pods, pins }: ImagesOptions, signal: AbortSignal): Promise<void> {
  inventory.look();
  pods.look();
  await pins.refresh(signal);
}

/** The search over the latest images. It is rebuilt when the images, the pods or the pins have
 *  changed, since the sort orders depend on them. */
function createSearches({ pods, pins }: Pick<ImagesOptions, 'pods' | 'pins'>, facts: ImageFacts): (images: StoredImages) => ImageSearch {
  let latest: { of: StoredImages; pods: Date | undefined; pins: number; search: ImageSearch } | undefined;
  return (images) => {
    const takenAt = pods.takenAt();
    const isCurrent = latest?.of === images && latest.pods?.getTime() === takenAt?.getTime() && latest.pins === pins.version();
    if (latest === undefined || !isCurrent) {
      latest = { of: images, pods: takenAt, pins: pins.version(), search: createImageSearch(images.images, facts) };
    }
    return latest.search;
  };
}

type ImageName = Pick<StoredImage, 'repository' | 'tag' | 'digest'>;

function keptBy(image: ImageName, { pins, keptBy }: Pick<ImagesOptions, 'pins' | 'keptBy'>): KeepReason | undefined {
  return pins.has(image) ? 'pinned' : keptBy(image);
}

function rowOf(image: StoredImage, options: ImagesOptions): ImageRow {
  const { repository, tag, digest, size, wholeSize, complete, platforms, lastUsed, goneSince } = image;
  const { nameOf, pods, pins, deniedBy } = options;
  return {
    repository: withoutCapability(repository),
    name: `${nameOf(repository)}${tag === undefined ? `@${digest}` : `:${tag}`}`,
    tag: tag ?? null,
    digest,
    size,
    wholeSize: wholeSize ?? null,
    complete,
    platforms: [...platforms],
    lastUsed: lastUsed === 0 ? null : new Date(lastUsed).toISOString(),
    pods: pods.usesOf({ ...image, tag })?.length ?? null,
    goneSince: goneSince ?? null,
    kept: keptBy(image, options) ?? null,
    pinned: pins.has(image),
    denied: deniedBy(image) ?? null,
  };
}

/** @throws ApiFailure NOT_FOUND */
async function detailOf(
  { repository, digest }: { repository: Repository; digest: Digest },
  options: ImagesOptions,
  signal: AbortSignal,
): Promise<ImageDetail> {
  const { inventory, pods, pins, nameOf, store, deniedBy } = options;
  const content = await readContent(store, digest, signal);
  const tags = tagsOf(inventory.current(), repository, digest);
  if (content === undefined) throw new ApiFailure('NOT_FOUND', 'this image is not stored');
  const rows = (tags.length === 0 ? [undefined] : tags.map(({ tag }) => tag)).map((tag) => ({ repository, tag, digest }));
  const uses = [...new Set(rows.flatMap((row) => pods.usesOf(row) ?? []))];
  const firstSeen = await options.firstSeen(digest, signal);
  const name = nameOf(repository);
  const used = inventory.current()?.images.find((image) => image.repository === repository && image.digest === digest)?.lastUsed ?? 0;
  const platforms = await describePlatforms(store, digest, content, signal);
  return {
    repository,
    names: rows.map(({ tag }) => `${name}${tag === undefined ? `@${digest}` : `:${tag}`}`),
    tags: tags.map(({ tag, goneSince, checkedAt }) => ({
      tag,
      goneSince: goneSince ?? null,
      checkedAt: new Date(checkedAt).toISOString(),
      pinned: pins.has({ repository, tag, digest }),
    })),
    digest,
    mediaType: content.mediaType,
    size: content.size + platforms.reduce((sum, platform) => sum + (platform.digest === digest ? 0 : (platform.size ?? 0)), 0),
    lastUsed: used === 0 ? null : new Date(used).toISOString(),
    kept: rows.map((row) => keptBy(row, options)).find((reason) => reason !== undefined) ?? null,
    pinned: rows.some((row) => pins.has(row)),
    denied: rows.map(deniedBy).find((rule) => rule !== undefined) ?? null,
    firstSeen: firstSeen === undefined ? null : new Date(firstSeen).toISOString(),
    platforms,
    annotations: content.annotations,
    pods: pods.takenAt() === undefined ? null : uses.slice(0, MAX_PODS),
  };
}

function tagsOf(stored: StoredImages | undefined, repository: Repository, digest: Digest) {
  const own = stored?.images.filter((image) => image.repository === repository && image.digest === digest) ?? [];
  return own.flatMap(({ tag, goneSince }) => {
    if (tag === undefined) return [];
    return [{ tag, goneSince, checkedAt: stored?.tags.get(`${repository}:${tag}`)?.checkedAt ?? 0 }];
  });
}
