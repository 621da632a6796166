import { createHash, timingSafeEqual } from 'node:crypto';

/** Where API servers send reviews. Every pod can reach the webhook and make up a review of a pod of
 *  another namespace, and the answer would hold the names of its private images. So the
 *  configuration, which only the API server and administrators read, holds a path that cannot be
 *  guessed (docs/decisions/private-names.md). */
export interface ReviewPath {
  /** For the MutatingWebhookConfiguration. */
  path(this: void): string;
  /** Whether who used this path has read the configuration. */
  isTrusted(this: void, path: string): boolean;
}

export const REVIEW_PATH = '/mutate';

/** @param token undefined: nothing is given away, or clients are known by their certificates; every
 *  path is trusted */
export function createReviewPath(token: (() => string) | undefined): ReviewPath {
  if (token === undefined) return { path: () => REVIEW_PATH, isTrusted: () => true };
  const path = (): string => `${REVIEW_PATH}/${token()}`;
  return { path, isTrusted: (given) => timingSafeEqual(hash(given), hash(path())) };
}

/** A path as it may be logged. */
export function withoutToken(path: string): string {
  return path.startsWith(`${REVIEW_PATH}/`) ? `${REVIEW_PATH}/…` : path;
}

function hash(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
