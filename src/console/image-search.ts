import { upstreamNameOf, withoutCapability } from '../oci/capability.ts';
import type { ImagesQuery } from './api/images.ts';
import type { StoredImage } from './inventory.ts';

/** Data for filters and sort orders that is not part of the stored image. */
export interface ImageFacts {
  /** How many pods use the image; undefined: pods cannot be listed. */
  podsOf(this: void, image: StoredImage): number | undefined;
  isKept(this: void, image: StoredImage): boolean;
  isDenied(this: void, image: StoredImage): boolean;
  /** The usual name, without a tag or digest. */
  nameOf(this: void, image: StoredImage): string;
}

export interface FoundImages {
  /** One page of results. */
  images: StoredImage[];
  total: number;
  totalBytes: number;
}

/** Searches one list of images; 100,000 images take a few ms. */
export interface ImageSearch {
  find(this: void, query: ImagesQuery): FoundImages;
  /** The first components of the repositories. */
  upstreams: readonly string[];
}

type SortKey = ImagesQuery['sort'];

/** @param images sorted by name */
export function createImageSearch(images: readonly StoredImage[], facts: ImageFacts): ImageSearch {
  const names = namesOf(images, facts);
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
      const passes = createFilter(query, facts);
      const named = wordsOf(query.search).map((word) => findWord(word, names, images));
      const found: FoundImages = { images: [], total: 0, totalBytes: 0 };
      for (let place = 0; place < order.length; place++) {
        const index = at(place);
        const image = images[index];
        if (image === undefined || !named.every((found) => found[index] === 1) || !passes(image)) continue;
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

/** The names of a listing's images in one text, one per line: searching one long text is many times
 *  faster than searching 100,000 short ones. */
interface Names {
  text: string;
  /** Where each line begins, and the end of the text. */
  starts: Uint32Array;
}

/** They depend only on the listing, which stays the same when pods or pins change. */
const known = new WeakMap<readonly StoredImage[], Names>();

function namesOf(images: readonly StoredImage[], { nameOf }: ImageFacts): Names {
  const before = known.get(images);
  if (before !== undefined) return before;
  const starts = new Uint32Array(images.length + 1);
  const lines = images.map((image, index) => {
    const line = `${searchName(image, nameOf(image))}\n`;
    starts[index + 1] = (starts[index] ?? 0) + line.length;
    return line;
  });
  const names = { text: lines.join(''), starts };
  known.set(images, names);
  return names;
}

function wordsOf(search: string): string[] {
  return search
    .toLowerCase()
    .split(/\s+/)
    .filter((word) => word !== '');
}

/** Fewer digits would match digests by chance: `cafe` is more likely a part of a name. */
const DIGEST_PART = /^(?:sha(?:256|512):[0-9a-f]*|[0-9a-f]{6,})$/;

/** @returns for each image 1 if its name or its digest contains the word */
function findWord(word: string, { text, starts }: Names, images: readonly StoredImage[]): Uint8Array {
  const found = new Uint8Array(images.length);
  let index = 0;
  for (let at = text.indexOf(word); at !== -1; at = text.indexOf(word, starts[index])) {
    index = lineAt(starts, at, index);
    found[index++] = 1;
  }
  if (DIGEST_PART.test(word)) {
    for (const [index, { digest }] of images.entries()) if (digest.includes(word)) found[index] = 1;
  }
  return found;
}

/** The line that contains a position of the text, at or after line `from`. */
function lineAt(starts: Uint32Array, place: number, from: number): number {
  if (place < (starts[from + 1] ?? 0)) return from;
  let [low, high] = [from + 1, starts.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    if ((starts[middle] ?? 0) <= place) low = middle;
    else high = middle;
  }
  return low;
}

function createFilter(
  { filter, upstream }: Pick<ImagesQuery, 'filter' | 'upstream'>,
  { podsOf, isKept, isDenied }: ImageFacts,
): (image: StoredImage) => boolean {
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
  return (image) => (upstream === '' || upstreamNameOf(image.repository) === upstream) && passes(image);
}

/** The indexes of the images, sorted by a value in ascending order; equal values stay sorted by
 *  name. */
function sortedBy(images: readonly StoredImage[], valueOf: (image: StoredImage) => number): Uint32Array {
  // Sorting a typed array of numbers takes a few ms; sorting objects takes much longer. So each
  // number combines the rounded value with the index; a double has room for sizes up to petabytes.
  const values = images.map(valueOf);
  const scale = Math.max(1, Math.max(0, ...maxima(values)) / 2 ** 33);
  const span = 2 ** 19;
  const keys = Float64Array.from(values, (value, index) => Math.floor(value / scale) * span + index);
  return Uint32Array.from(keys.sort(), (key) => key % span);
}

/** Takes the maximum in steps of a thousand values: spreading 100,000 arguments would overflow the
 *  stack. */
function maxima(values: readonly number[]): number[] {
  const largest: number[] = [];
  for (let at = 0; at < values.length; at += 1000) largest.push(Math.max(...values.slice(at, at + 1000)));
  return largest;
}
