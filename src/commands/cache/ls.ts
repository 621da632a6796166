import picomatch from 'picomatch';
import type { ManifestContent } from '../../oci/descriptor.ts';
import { withoutCapability } from '../../oci/capability.ts';
import type { Digest } from '../../oci/digest.ts';
import type { Repository } from '../../oci/reference.ts';
import { takeInventory, type Image, type Inventory, type Place } from '../../upkeep/inventory.ts';
import { readTags } from '../../upkeep/tags.ts';
import { formatBytes, renderTable } from '../table.ts';
import type { Host } from '../command.ts';
import { createProgress } from './progress.ts';
import { openStore } from '../wiring/storage.ts';

export interface LsOptions {
  /** Globs over `repository` and `repository:tag`; empty: all images. */
  patterns: readonly string[];
  sort: 'used' | 'name' | 'size' | 'unique' | 'days';
  /** List the platforms of indexes as well. */
  all: boolean;
  /** Only images with a tag that the upstream has deleted. */
  gone: boolean;
  /** Only images that were pushed to repositories of registry.hosted. */
  hosted: boolean;
  json: boolean;
}

/** An image of one repository. */
interface Line {
  repository: string;
  /** Pulled with pull secrets. An image that several of them may read is listed once. */
  private: boolean;
  tags: string[];
  digest: Digest;
  /** Of an index: the stored platforms, and how many it names. */
  platforms: string[];
  platformsNamed: number;
  /** Bytes of its stored content, and how many of them no other image needs. */
  size: number;
  unique: number;
  /** The last day on which it was pulled. */
  lastUse: string | null;
  /** On how many days of the last month it was pulled, plus the last day of all. */
  days: number;
  stored: string;
  /** The tags that the upstream has deleted, and when this was noticed. */
  gone: { tag: string; since: string }[];
}

/** `kube-registry cache ls`: lists the stored images. @throws OciError UNAVAILABLE */
export async function cacheLs({ config, stop, stdout, stderr }: Host, options: LsOptions): Promise<number> {
  const store = await openStore(config.registry);
  const progress = createProgress(stderr);
  const bar = progress.start('reading manifests');
  const platforms = new Map<Digest, { digest: Digest; platform: string }[]>();
  try {
    const inventory = await takeInventory(store, {
      signal: stop,
      progress: bar.set,
      read: (image, content) => image.isIndex && platforms.set(image.digest, platformsOf(content)),
    });
    const gone = new Map<string, string>();
    const note = ({ repository, tag }: { repository: string; tag: string }, since: string) => gone.set(`${repository}:${tag}`, since);
    const tags = await readTags(store, { parallel: 16, signal: stop, gone: note });
    bar.end();
    const chosen = rows(inventory, options.all, (repository, digest) => tags.get(`${repository}@${digest}`) ?? []);
    const lines = sizes(inventory, chosen).map(([row, size]) =>
      lineOf(row, { ...size, inventory, platforms: platforms.get(row.image.digest) ?? [], gone }),
    );
    const isHosted = ({ repository }: Line): boolean => Object.hasOwn(config.registry.hosted, repository.slice(0, repository.indexOf('/')));
    const shown = lines
      .filter((line) => (!options.gone || line.gone.length > 0) && (!options.hosted || isHosted(line)))
      .filter(matcher(options.patterns))
      .sort(ORDERS[options.sort]);
    stdout.write(options.json ? `${JSON.stringify(shown, undefined, 2)}\n` : render(shown));
    return 0;
  } finally {
    progress.stop();
    await store.close();
  }
}

interface Row {
  image: Image;
  place: Place;
  /** The names in the store for `place`. */
  repositories: readonly Repository[];
  tags: string[];
  /** Whether it is only a platform of a listed index. */
  within: boolean;
}

interface LineContext {
  size: number;
  unique: number;
  inventory: Inventory;
  /** The platforms that the image names. */
  platforms: readonly { digest: Digest; platform: string }[];
  /** When it was noticed that a tag was gone, by `repository:tag`. */
  gone: ReadonlyMap<string, string>;
}

function lineOf({ image, place, repositories, tags }: Row, { size, unique, inventory, platforms, gone }: LineContext): Line {
  return {
    repository: place.repository,
    private: repositories.some((repository) => repository !== place.repository),
    tags,
    digest: image.digest,
    platforms: platforms.filter(({ digest }) => inventory.byDigest.has(digest)).map(({ platform }) => platform),
    platformsNamed: platforms.length,
    size,
    unique,
    lastUse: place.lastDay === '' ? null : place.lastDay,
    days: place.days,
    stored: new Date(inventory.blobs.modified(image.blob)).toISOString(),
    gone: tags.flatMap((tag) => {
      const since = repositories.flatMap((repository) => gone.get(`${repository}:${tag}`) ?? []);
      const [first] = since.toSorted();
      return first === undefined ? [] : [{ tag, since: first }];
    }),
  };
}

/** One row per repository and image; platforms of an index only if they have a tag, or with
 *  `all`. */
function rows({ images, blobs }: Inventory, all: boolean, tagsOf: (repository: string, digest: Digest) => string[]): Row[] {
  const within = new Set<string>();
  for (const { isIndex, names, places } of images) {
    if (isIndex) for (const blob of names) for (const { repository } of places) within.add(`${repository}@${blobs.digest(blob)}`);
  }
  return images.flatMap((image) =>
    placesOf(image)
      .map(({ place, repositories }) => {
        const tags = [...new Set(repositories.flatMap((repository) => tagsOf(repository, image.digest)))].sort();
        const isWithin = repositories.some((repository) => within.has(`${repository}@${image.digest}`));
        return { image, place, repositories, tags, within: tags.length === 0 && isWithin };
      })
      .filter((row) => all || !row.within),
  );
}

/** The places of an image. Places that differ only in the pull secrets are merged into one, without
 *  the secrets' ids. */
function placesOf({ places }: Image): { place: Place; repositories: readonly Repository[] }[] {
  const merged = new Map<string, { place: Place; repositories: Repository[] }>();
  for (const own of places) {
    const repository = withoutCapability(own.repository);
    const key = repository === own.repository ? repository : `private ${repository}`;
    const before = merged.get(key) ?? { place: { ...own, repository }, repositories: [] };
    const isLater = own.lastDay > before.place.lastDay;
    const days = Math.max(before.place.days, own.days);
    merged.set(key, {
      place: { ...(isLater ? own : before.place), repository, days },
      repositories: [...before.repositories, own.repository],
    });
  }
  return [...merged.values()];
}

/** The bytes of each row, and how many of them no other image needs. The index of a platform does
 *  not count as another image. */
function sizes({ images, blobs }: Inventory, rows: readonly Row[]): [Row, { size: number; unique: number }][] {
  const byBlob = new Map(images.map((image) => [image.blob, image]));
  const closure = (image: Image, reached = new Set<number>()): Set<number> => {
    for (const blob of [image.blob, ...image.names]) {
      if (reached.has(blob)) continue;
      reached.add(blob);
      const child = image.isIndex ? byBlob.get(blob) : undefined;
      if (child !== undefined) closure(child, reached);
    }
    return reached;
  };
  const needed = new Uint32Array(blobs.count());
  for (const { image } of rows.filter((row) => !row.within)) for (const blob of closure(image)) needed[blob] = (needed[blob] ?? 0) + 1;
  return rows.map((row) => {
    const sum = { size: 0, unique: 0 };
    for (const blob of closure(row.image)) {
      sum.size += blobs.size(blob);
      if (needed[blob] === 1) sum.unique += blobs.size(blob);
    }
    return [row, sum];
  });
}

function platformsOf({ manifests }: ManifestContent): { digest: Digest; platform: string }[] {
  return manifests.flatMap(({ digest, platform }) =>
    // BuildKit's attestations are not a platform.
    platform === undefined || platform.os === 'unknown'
      ? []
      : [{ digest, platform: [platform.os, platform.architecture, platform.variant].filter((part) => part !== undefined).join('/') }],
  );
}

function matcher(patterns: readonly string[]): (line: Line) => boolean {
  if (patterns.length === 0) return () => true;
  // A star also matches slashes.
  const matches = picomatch([...patterns], { bash: true, dot: true, nonegate: true });
  return ({ repository, tags, digest }) =>
    [repository, `${repository}@${digest}`, ...tags.map((tag) => `${repository}:${tag}`)].some((name) => matches(name));
}

const byName = (one: Line, other: Line): number => (nameOf(one) < nameOf(other) ? -1 : 1);
const ORDERS: Record<LsOptions['sort'], (one: Line, other: Line) => number> = {
  used: (one, other) => (other.lastUse ?? '').localeCompare(one.lastUse ?? '') || byName(one, other),
  name: byName,
  size: (one, other) => other.size - one.size || byName(one, other),
  unique: (one, other) => other.unique - one.unique || byName(one, other),
  days: (one, other) => other.days - one.days || byName(one, other),
};

function nameOf({ repository, tags, digest }: Line): string {
  return tags.length === 0 ? `${repository}@${digest.slice(0, 19)}` : `${repository}:${tags.join(',')}`;
}

function render(lines: readonly Line[]): string {
  if (lines.length === 0) return 'no images\n';
  const cells = lines.map((line) => [
    `${nameOf(line)}${line.private ? ' (private)' : ''}`,
    line.platformsNamed === 0 ? '-' : `${line.platforms.join(',') || 'none'} of ${line.platformsNamed}`,
    formatBytes(line.size),
    formatBytes(line.unique),
    line.lastUse ?? '-',
    String(line.days),
    line.gone.map(({ tag, since }) => `${tag} since ${since.slice(0, 10)}`).join(', ') || '-',
  ]);
  return renderTable(['IMAGE', 'PLATFORMS', 'SIZE', 'UNIQUE', 'LAST USE', 'DAYS', 'GONE UPSTREAM'], cells);
}
