import { json } from 'node:stream/consumers';
import { inParallel } from '../../async/parallel.ts';
import { readAll } from '../../io/body.ts';
import { fieldsOf, textOf, type Fields } from '../../io/untrusted.ts';
import { MAX_MANIFEST_SIZE, parseManifest, type Descriptor, type ManifestContent } from '../../oci/descriptor.ts';
import type { Digest } from '../../oci/digest.ts';
import { withoutCapability } from '../../oci/capability.ts';
import { formatPlatform } from '../../oci/platform.ts';
import type { Repository } from '../../oci/reference.ts';
import { blobKey } from '../../store/keys.ts';
import type { Store } from '../../store/store.ts';
import type { KeepReason } from '../../upkeep/keep.ts';
import type { ImageDetail, ImageRow } from '../api/images.ts';
import { ApiFailure, type ApiHandlers } from '../api-server.ts';
import { createImageSearch, type ImageFacts, type ImageSearch } from '../image-search.ts';
import type { InventoryService } from '../inventory-service.ts';
import type { StoredImage, StoredImages } from '../inventory.ts';
import type { Pins } from '../../upkeep/pins.ts';
import type { Pods } from '../pods-service.ts';

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
const MAX_PLATFORMS = 100;
const READS_AT_ONCE = 8;
const MAX_CONFIG_BYTES = 2 ** 20;

/** The stored images: a page of them, and one in detail. */
export function createImagesHandlers(options: ImagesOptions): Pick<ApiHandlers, 'images' | 'image'> {
  const { inventory, pods, pins, nameOf } = options;
  let search: { of: StoredImages; pods: Date | undefined; pins: number; search: ImageSearch } | undefined;
  const facts: ImageFacts = {
    podsOf: (image) => pods.usesOf({ ...image, tag: image.tag })?.length,
    isKept: (image) => keptBy(image) !== undefined,
    isDenied: (image) => options.deniedBy(image) !== undefined,
    nameOf: ({ repository }) => nameOf(repository),
  };

  function keptBy(image: Pick<StoredImage, 'repository' | 'tag' | 'digest'>): KeepReason | undefined {
    return pins.has(image) ? 'pinned' : options.keptBy(image);
  }

  /** Rebuilt when the images, the pods or the pins have changed, since the sort orders depend on
   *  them. */
  function searchOf(images: StoredImages): ImageSearch {
    const takenAt = pods.takenAt();
    const isCurrent = search?.of === images && search.pods?.getTime() === takenAt?.getTime() && search.pins === pins.version();
    if (search === undefined || !isCurrent) {
      search = { of: images, pods: takenAt, pins: pins.version(), search: createImageSearch(images.images, facts) };
    }
    return search.search;
  }

  inventory.onListed(searchOf);

  function rowOf(image: StoredImage): ImageRow {
    const { repository, tag, digest, size, complete, platforms, lastUsed, goneSince } = image;
    return {
      repository: withoutCapability(repository),
      name: `${nameOf(repository)}${tag === undefined ? `@${digest}` : `:${tag}`}`,
      tag: tag ?? null,
      digest,
      size,
      complete,
      platforms: [...platforms],
      lastUsed: lastUsed === 0 ? null : new Date(lastUsed).toISOString(),
      pods: facts.podsOf(image) ?? null,
      goneSince: goneSince ?? null,
      kept: keptBy(image) ?? null,
      pinned: pins.has(image),
      denied: options.deniedBy(image) ?? null,
    };
  }

  return {
    async images({ query, signal }) {
      inventory.look();
      pods.look();
      await pins.refresh(signal);
      const stored = inventory.current();
      const podsProblem = pods.problem() ?? null;
      if (stored === undefined) {
        return { images: [], total: 0, totalBytes: 0, offset: query.offset, takenAt: null, podsProblem, upstreams: [], truncated: false };
      }
      const found = searchOf(stored);
      const { images, total, totalBytes } = found.find(query);
      return {
        images: images.map(rowOf),
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
      inventory.look();
      pods.look();
      await pins.refresh(signal);
      const { repository, digest } = query;
      const content = await readContent(options.store, digest, signal);
      const tags = tagsOf(inventory.current(), repository, digest);
      if (content === undefined) throw new ApiFailure('NOT_FOUND', 'this image is not stored');
      const rows = (tags.length === 0 ? [undefined] : tags.map(({ tag }) => tag)).map((tag) => ({ repository, tag, digest }));
      const uses = [...new Set(rows.flatMap((row) => pods.usesOf(row) ?? []))];
      const firstSeen = await options.firstSeen(digest, signal);
      const name = nameOf(repository);
      const used = inventory.current()?.images.find((image) => image.repository === repository && image.digest === digest)?.lastUsed ?? 0;
      const platforms = await describePlatforms(options.store, digest, content, signal);
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
        kept: rows.map(keptBy).find((reason) => reason !== undefined) ?? null,
        pinned: rows.some((row) => pins.has(row)),
        denied: rows.map(options.deniedBy).find((rule) => rule !== undefined) ?? null,
        firstSeen: firstSeen === undefined ? null : new Date(firstSeen).toISOString(),
        platforms,
        annotations: content.annotations,
        pods: pods.takenAt() === undefined ? null : uses.slice(0, MAX_PODS),
      };
    },
  };
}

function tagsOf(stored: StoredImages | undefined, repository: Repository, digest: Digest) {
  const own = stored?.images.filter((image) => image.repository === repository && image.digest === digest) ?? [];
  return own.flatMap(({ tag, goneSince }) => {
    if (tag === undefined) return [];
    return [{ tag, goneSince, checkedAt: stored?.tags.get(`${repository}:${tag}`)?.checkedAt ?? 0 }];
  });
}

interface Content extends ManifestContent {
  /** Size in bytes of the manifest and its stored blobs. */
  size: number;
  annotations: Record<string, string>;
  layers: ImageDetail['platforms'][number]['layers'];
}

async function readContent(store: Store, digest: Digest, signal: AbortSignal): Promise<Content | undefined> {
  const found = await store.read(blobKey(digest), { signal });
  const bytes = found === undefined ? undefined : await readAll(found.body, MAX_MANIFEST_SIZE);
  if (bytes === undefined) return undefined;
  try {
    const content = parseManifest(bytes, '');
    const layers = await Promise.all(content.blobs.map((blob) => describeLayer(store, blob, signal)));
    const stored = layers.reduce((sum, layer) => sum + (layer.stored ? layer.size : 0), 0);
    const annotations = textsIn(fieldsOf(fieldsOf(JSON.parse(String(bytes)))['annotations']));
    return { ...content, size: bytes.length + stored, annotations, layers };
  } catch {
    return undefined; // a blob, not a manifest
  }
}

async function describeLayer(store: Store, { digest, mediaType, size }: Descriptor, signal: AbortSignal) {
  const stored = await store.stat(blobKey(digest), { signal });
  return { digest, mediaType, size: stored?.size ?? size, stored: stored !== undefined };
}

async function describePlatforms(store: Store, digest: Digest, content: Content, signal: AbortSignal): Promise<ImageDetail['platforms']> {
  if (content.manifests.length === 0) return [await describePlatform(store, { digest, platform: '' }, content, signal)];
  const described = new Map<Digest, ImageDetail['platforms'][number]>();
  const manifests = content.manifests.slice(0, MAX_PLATFORMS);
  await inParallel(manifests, READS_AT_ONCE, async ({ digest, platform }) => {
    const own = await readContent(store, digest, signal);
    described.set(digest, await describePlatform(store, { digest, platform: formatPlatform(platform) }, own, signal));
  });
  return manifests.flatMap(({ digest }) => described.get(digest) ?? []);
}

async function describePlatform(
  store: Store,
  { digest, platform }: { digest: Digest; platform: string },
  content: Content | undefined,
  signal: AbortSignal,
): Promise<ImageDetail['platforms'][number]> {
  const config = content === undefined ? {} : await readConfig(store, content.layers[0], signal);
  const [os, architecture] = [textOf(config['os']), textOf(config['architecture'])];
  return {
    platform: platform === '' && os !== undefined && architecture !== undefined ? `${os}/${architecture}` : platform,
    digest,
    stored: content !== undefined,
    size: content?.size ?? null,
    created: textOf(config['created']) ?? null,
    layers: content?.layers.slice(1) ?? [],
    labels: textsIn(fieldsOf(fieldsOf(config['config'])['Labels'])),
  };
}

async function readConfig(store: Store, layer: Content['layers'][number] | undefined, signal: AbortSignal): Promise<Fields> {
  if (layer === undefined || !layer.stored || layer.size > MAX_CONFIG_BYTES) return {};
  const found = await store.read(blobKey(layer.digest), { signal });
  try {
    return found === undefined ? {} : fieldsOf(await json(found.body));
  } catch (error) {
    if (error instanceof SyntaxError) return {}; // the config of an artifact may be anything
    throw error;
  }
}

/** Labels and annotations, cut to a size that the page can show. */
const MAX_TEXTS = 100;
const MAX_TEXT_LENGTH = 2000;

function textsIn(fields: Fields): Record<string, string> {
  const texts = Object.entries(fields).flatMap(([key, value]) =>
    typeof value === 'string' ? [[key, value.slice(0, MAX_TEXT_LENGTH)] as const] : [],
  );
  return Object.fromEntries(texts.slice(0, MAX_TEXTS));
}
