import { upstreamNameOf, withoutCapability } from '../oci/capability.ts';
import type { ImagesQuery } from './api/images.ts';
import type { StoredImage } from './inventory.ts';

/** What filters and orders need to know beside what is stored. */
export interface ImageFacts {
  /** How many pods use the image; undefined: pods cannot be listed. */
  podsOf(this: void, image: StoredImage): number | undefined;
  isKept(this: void, image: StoredImage): boolean;
  isDenied(this: void, image: StoredImage): boolean;
  /** As the world names it, without a tag or digest. */
  nameOf(this: void, image: StoredImage): string;
}

export interface FoundImages {
  /** One page. */
  images: StoredImage[];
  total: number;
  totalBytes: number;
}

/** Searches one listing of images: 100,000 of them in a few ms. */
export interface ImageSearch {
  find(this: void, query: ImagesQuery): FoundImages;
  /** The first components of their repositories. */
  upstreams: readonly string[];
}

type SortKey = ImagesQuery['sort'];

/** @param images in the order of their names */
export function createImageSearch(images: readonly StoredImage[], facts: ImageFacts): ImageSearch {
  const names = images.map((image) => searchName(image, facts.nameOf(image)));
  const orders = new Map<SortKey, Uint32Array>();
  const allBytes = images.reduce((sum, { size }) => sum + size, 0);

  function orderBy(sort: SortKey): Uint32Array {
    const known = orders.get(sort);
    if (known !== undefined) return known;
    const order = sort === 'name' ? Uint32Array.from(images.keys()) : sortedBy(images, (image) => valueOf(image, sort));
    orders.set(sort, order);
    return order;
  }

  function valueOf(image: StoredImage, sort: Exclude<SortKey, 'name'>): number {
    if (sort === 'size') return image.size;
    return sort === 'pods' ? (facts.podsOf(image) ?? 0) : image.lastUsed;
  }

  return {
    upstreams: [...new Set(images.map(({ repository }) => upstreamNameOf(repository)))],
    find(query) {
      const order = orderBy(query.sort);
      const at = (place: number): number => order[query.order === 'asc' ? place : order.length - 1 - place] ?? 0;
      if (isUnfiltered(query)) {
        const places = Array.from({ length: Math.max(0, Math.min(query.limit, images.length - query.offset)) }, (_, n) => query.offset + n);
        return { images: places.flatMap((place) => images[at(place)] ?? []), total: images.length, totalBytes: allBytes };
      }
      const matches = createMatcher(query, facts);
      const found: FoundImages = { images: [], total: 0, totalBytes: 0 };
      for (let place = 0; place < order.length; place++) {
        const index = at(place);
        const image = images[index];
        if (image === undefined || !matches(image, names[index] ?? '')) continue;
        if (found.total >= query.offset && found.images.length < query.limit) found.images.push(image);
        found.total++;
        found.totalBytes += image.size;
      }
      return found;
    },
  };
}

function isUnfiltered({ search, filter, upstream }: ImagesQuery): boolean {
  return search.trim() === '' && filter === 'all' && upstream === '';
}

function searchName(image: StoredImage, name: string): string {
  const { tag } = image;
  const repository = withoutCapability(image.repository);
  const tagged = tag === undefined ? '' : `:${tag.toLowerCase()}`;
  return name === repository ? name + tagged : `${name}${tagged} ${repository}${tagged}`;
}

function createMatcher(
  { search, filter, upstream }: Pick<ImagesQuery, 'search' | 'filter' | 'upstream'>,
  { podsOf, isKept, isDenied }: ImageFacts,
): (image: StoredImage, name: string) => boolean {
  const words = search
    .toLowerCase()
    .split(/\s+/)
    .filter((word) => word !== '');
  const filters: Record<ImagesQuery['filter'], (image: StoredImage) => boolean> = {
    all: () => true,
    'in-use': (image) => (podsOf(image) ?? 0) > 0,
    unused: (image) => podsOf(image) === 0,
    gone: ({ goneSince }) => goneSince !== undefined,
    kept: isKept,
    denied: isDenied,
    incomplete: ({ complete }) => !complete,
  };
  const passes = filters[filter];
  return (image, name) =>
    (upstream === '' || upstreamNameOf(image.repository) === upstream) &&
    words.every((word) => name.includes(word) || image.digest.includes(word)) &&
    passes(image);
}

/** The indexes of the images in ascending order of a value; equal ones stay in the order of their names. */
function sortedBy(images: readonly StoredImage[], valueOf: (image: StoredImage) => number): Uint32Array {
  // A typed array of numbers is sorted in a few ms, and objects are not: the index is put behind the value, which a double holds for
  // sizes up to petabytes when they are rounded.
  const values = images.map(valueOf);
  const scale = Math.max(1, Math.max(0, ...maxima(values)) / 2 ** 33);
  const span = 2 ** 19;
  const keys = Float64Array.from(values, (value, index) => Math.floor(value / scale) * span + index);
  return Uint32Array.from(keys.sort(), (key) => key % span);
}

/** The largest of every thousand values: a spread of 100,000 arguments would overflow the stack. */
function maxima(values: readonly number[]): number[] {
  const largest: number[] = [];
  for (let at = 0; at < values.length; at += 1000) largest.push(Math.max(...values.slice(at, at + 1000)));
  return largest;
}
