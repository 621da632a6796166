import { timingSafeEqual } from 'node:crypto';

/** The path to which API servers send reviews. Every pod can reach the webhook and forge a review
 *  of a pod of another namespace, and the answer would contain the names of its private images. So
 *  the configuration, which only the API server and administrators can read, contains a path that
 *  cannot be guessed (docs/decisions/private-names.md). */
export interface ReviewPath {
  /** For the MutatingWebhookConfiguration. */
  path(this: void): string;
  /** Whether a client that uses this path has read the configuration. */
  isTrusted(this: void, path: string): boolean;
}

export const REVIEW_PATH = '/mutate';

/** @param token undefined: answers contain no private names, or clients are known by their
 *  certificates, so every path is trusted */
export function createReviewPath(token: (() => string) | undefined): ReviewPath {
  if (token === undefined) return { path: () => REVIEW_PATH, isTrusted: () => true };
  const path = (): string => `${REVIEW_PATH}/${token()}`;
  return { path, isTrusted: (given) => isEqual(Buffer.from(given), Buffer.from(path())) };
}

/** A path, redacted for the log. */
export function withoutToken(path: string): string {
  return path.startsWith(`${REVIEW_PATH}/`) ? `${REVIEW_PATH}/…` : path;
}

/** Only the length, which is no secret, changes how long it takes. */
function isEqual(one: Buffer, other: Buffer): boolean {
  return one.length === other.length && timingSafeEqual(one, other);
}
