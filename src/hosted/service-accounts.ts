import { createHmac, randomBytes } from 'node:crypto';
import { createSemaphore } from '../async/semaphore.ts';
import { createExpiringCache } from '../io/expiring-cache.ts';
import { fieldsOf, textOf, textsOf } from '../io/untrusted.ts';
import { OciError } from '../oci/error.ts';

/** The required audience of a projected token. */
export const TOKEN_AUDIENCE = 'kube-registry';
/** Concurrent reviews; further ones wait. */
const MAX_REVIEWS = 8;
const MAX_WAITING = 128;
const MAX_REMEMBERED = 10_000;
/** How long a refusal is cached: a pod may retry again and again. */
const REFUSED_LIFE_MS = 10_000;
/** How long an accepted token is cached at most: Kubernetes may have deleted its pod or its
 *  ServiceAccount. */
const MAX_LIFE_MS = 300_000;
const MAX_TOKEN_LENGTH = 16 * 1024;
const SERVICE_ACCOUNT = /^system:serviceaccount:([^:]+):([^:]+)$/;

/** Asks the API server about a token: the status of a TokenReview (authentication.k8s.io/v1).
 *  @throws OciError UNAVAILABLE, DENIED */
export type ReviewToken = (token: string, signal: AbortSignal) => Promise<unknown>;

/** Which ServiceAccount a token belongs to, by TokenReview.
 *  @returns a function that returns `namespace/name`, or undefined for a token that is not valid,
 *  or not for TOKEN_AUDIENCE
 *  @throws OciError UNAVAILABLE: the API server does not answer; TOOMANYREQUESTS */
export function createServiceAccounts(review: ReviewToken): (token: string, signal: AbortSignal) => Promise<string | undefined> {
  const known = createExpiringCache<string, { name: string | undefined }>({ max: MAX_REMEMBERED });
  const secret = randomBytes(32);
  const turns = createSemaphore(MAX_REVIEWS, {
    maxWaiting: MAX_WAITING,
    full: () => new OciError('TOOMANYREQUESTS', 'too many tokens are being reviewed; try again in a moment', { retryAfter: 1 }),
  });

  return async (token, signal) => {
    if (token.length > MAX_TOKEN_LENGTH) return undefined;
    // The cache holds keys instead of tokens; they cannot be computed without this process's
    // secret.
    const key = createHmac('sha256', secret).update(token).digest('base64');
    const remembered = known.get(key);
    if (remembered !== undefined) return remembered.name;
    const name = nameOf(await turns.run(() => review(token, signal), signal));
    const ttl = name === undefined ? REFUSED_LIFE_MS : Math.min(MAX_LIFE_MS, lifeOf(token));
    if (ttl > 0) known.set(key, { name }, { ttl });
    return name;
  };
}

function nameOf(status: unknown): string | undefined {
  const { authenticated, audiences, user } = fieldsOf(status);
  if (authenticated !== true || !textsOf(audiences).includes(TOKEN_AUDIENCE)) return undefined;
  const [, namespace, name] = SERVICE_ACCOUNT.exec(textOf(fieldsOf(user)['username']) ?? '') ?? [];
  return namespace === undefined ? undefined : `${namespace}/${name}`;
}

/** Milliseconds until a JSON Web Token expires, by its `exp` claim (RFC 7519, section 4.1.4); 0 if
 *  it has none. */
function lifeOf(token: string): number {
  try {
    const claims: unknown = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
    const { exp } = fieldsOf(claims);
    return typeof exp === 'number' ? Math.max(0, 1000 * exp - Date.now()) : 0;
  } catch (error) {
    if (error instanceof SyntaxError) return 0;
    throw error;
  }
}
