import { withoutCapability } from '../oci/capability.ts';
import type { Digest } from '../oci/digest.ts';
import { createImageGlobs } from '../oci/image-globs.ts';
import type { Reference, Repository, Tag } from '../oci/reference.ts';
import { isDigest } from '../oci/digest.ts';
import type { Image } from './inventory.ts';
import type { TagsByImage } from './tags.ts';

/** hosted: the image was pushed here, and no upstream has it. pinned: registry.cache.keep names it,
 *  or a user has pinned it in the console. in-use: a pod of the cluster runs it. */
export type KeepReason = 'hosted' | 'pinned' | 'in-use';

/** A stored image under one of its names. */
export interface KeepCandidate {
  repository: Repository;
  digest: Digest;
  tags: readonly Tag[];
}

/** The reason why an image must stay, regardless of the limits; undefined: it need not. */
export type Keep = (candidate: KeepCandidate) => KeepReason | undefined;

export interface KeepOptions {
  /** The first components of hosted repositories. */
  hosted: readonly string[];
  /** Globs over `dockerhub/library/nginx:1.27`, and over the names that `namesOf` returns; a star
   *  also matches slashes. */
  pinned: readonly string[];
  /** Images that users have pinned: `repository:tag`, `repository@digest`. */
  pins: ReadonlySet<string>;
  /** The images that pods currently run, by the registry's own names. */
  inUse: readonly { repository: Repository; reference: Reference }[];
  /** Other names of a repository: `docker.io/library/nginx`. */
  namesOf(this: void, repository: Repository): readonly string[];
}

export function createKeep({ hosted, pinned, pins, inUse, namesOf }: KeepOptions): Keep {
  const globs = createImageGlobs(pinned);
  const tags = new Set<string>();
  const digests = new Set<Digest>();
  for (const { repository, reference } of inUse) {
    // A runtime may have pulled a digest under another name.
    if (isDigest(reference)) digests.add(reference);
    else tags.add(`${withoutCapability(repository)}:${reference}`);
  }
  return ({ repository: stored, digest, tags: own }) => {
    const repository = withoutCapability(stored); // one secret's copy of an image is as good as another's
    if (hosted.includes(repository.slice(0, repository.indexOf('/')))) return 'hosted';
    const references = ['', `@${digest}`, ...own.map((tag) => `:${tag}`)];
    if (references.some((reference) => pins.has(repository + reference))) return 'pinned';
    if ([repository, ...namesOf(repository)].some((name) => references.some((reference) => globs.find(name + reference) !== undefined)))
      return 'pinned';
    return digests.has(digest) || own.some((tag) => tags.has(`${repository}:${tag}`)) ? 'in-use' : undefined;
  };
}

/** The images that must stay. */
export function keptImages(images: readonly Image[], { keep, tags }: { keep: Keep; tags: TagsByImage }): Map<Image, KeepReason> {
  const kept = new Map<Image, KeepReason>();
  for (const image of images) {
    for (const { repository } of image.places) {
      const reason = keep({ repository, digest: image.digest, tags: tags.get(`${repository}@${image.digest}`) ?? [] });
      if (reason !== undefined) kept.set(image, reason);
    }
  }
  return kept;
}
