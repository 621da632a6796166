import { isDigest, type Digest } from './digest.ts';
import { OciError } from './error.ts';

declare const repositoryBrand: unique symbol;
declare const tagBrand: unique symbol;

/** A repository's name, without a host: `library/nginx`. */
export type Repository = string & { readonly [repositoryBrand]: true };
export type Tag = string & { readonly [tagBrand]: true };
/** A tag holds no colon and a digest always does, so the two never meet. */
export type Reference = Tag | Digest;

// The grammar of the distribution specification 1.1 ("Pulling manifests") and of
// distribution/reference, whose limit of 255 characters for a name it shares.
const COMPONENT = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*';
const REPOSITORY = new RegExp(`^${COMPONENT}(?:/${COMPONENT})*$`);
const TAG = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;
const MAX_NAME_LENGTH = 255;

/** @throws OciError NAME_INVALID */
export function parseRepository(text: string): Repository {
  if (!isRepository(text)) {
    throw new OciError(
      'NAME_INVALID',
      `not a repository name: ${JSON.stringify(text.slice(0, 160))}; lower-case path components of letters and digits, joined by one of . _ __ -, at most ${MAX_NAME_LENGTH} characters`,
    );
  }
  return text;
}

export function isRepository(text: string): text is Repository {
  return text.length <= MAX_NAME_LENGTH && REPOSITORY.test(text);
}

/** @throws OciError TAG_INVALID */
export function parseTag(text: string): Tag {
  if (!isTag(text)) {
    throw new OciError('TAG_INVALID', `not a tag: ${JSON.stringify(text.slice(0, 160))}; up to 128 letters, digits, . _ and -`);
  }
  return text;
}

export function isTag(text: string): text is Tag {
  return TAG.test(text);
}

/** Whether a parsed reference is a digest: no tag has a colon. `isDigest` checks any text, which
 *  takes longer. */
export function refersByDigest(reference: Reference): reference is Digest {
  return reference.includes(':');
}

/** A tag or a digest. @throws OciError TAG_INVALID, DIGEST_INVALID */
export function parseReference(text: string): Reference {
  if (isDigest(text)) return text;
  if (text.includes(':')) throw new OciError('DIGEST_INVALID', `not a digest: ${JSON.stringify(text.slice(0, 160))}`);
  return parseTag(text);
}

/** A repository of one upstream, as `routed` and the store name it: `dockerhub` + `library/nginx`.
 *  @param first one or more components of a repository's name
 *  @throws OciError NAME_INVALID: the name becomes too long */
export function joinRepository(first: string, repository: Repository): Repository {
  const name = `${first}/${repository}`;
  return name.length <= MAX_NAME_LENGTH ? (name as Repository) : parseRepository(name);
}
