import picomatch from 'picomatch';

/** Globs over names of images: `docker.io/library/nginx:1.*`, `ghcr.io/owner/*`. */
export interface ImageGlobs {
  /** The first glob that matches a whole name; undefined: no glob does. */
  find(this: void, name: string): string | undefined;
  /** Whether there are any globs. */
  isEmpty: boolean;
}

/** A star also matches slashes and colons, so that `docker.io/*` is all of a registry; no glob
 *  negates. */
export function createImageGlobs(globs: readonly string[]): ImageGlobs {
  const matchers = globs.map((glob) => ({ glob, matches: picomatch(glob, { bash: true, dot: true, nonegate: true }) }));
  return {
    find: (name) => matchers.find(({ matches }) => matches(name))?.glob,
    isEmpty: globs.length === 0,
  };
}
