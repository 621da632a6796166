import {
  ERROR_CODE_HEADER,
  isAbsent,
  isOciError,
  OciError,
  REFUSED_BY_POLICY,
  type OciErrorCode,
  type OciErrorOptions,
} from '../oci/error.ts';
import type { Reply } from './endpoint.ts';
import { parseRetryAfter } from './retry-after.ts';

/** What a failed request reveals about its source.
 *  `object`: the source does not serve this object; retrying is pointless, but other objects may be
 *  available.
 *  `moment`: a temporary failure; a retry may succeed.
 *  `source`: the source is not the expected registry; no request to it can succeed. */
export type Failure = 'object' | 'moment' | 'source';

/** The error that an upstream's answer is turned into. */
export class UpstreamError extends OciError {
  readonly failure: Failure;
  constructor(failure: Failure, code: OciErrorCode, message: string, options: Omit<OciErrorOptions, 'origin'> = {}) {
    super(code, message, { ...options, origin: 'upstream' });
    this.failure = failure;
  }
}

export interface RefusalContext {
  host: string;
  repository: string;
  /** The error code for a 404. */
  absent: OciErrorCode;
  /** The message in the error's body. */
  words: string | undefined;
  /** The answer has a body or a header that only registries send. */
  ofRegistry: boolean;
  /** Upstream is another part of this program: its message is passed on unchanged. */
  trusted: boolean;
  /** Advice about a refused login, for the user. */
  advice: string;
}

const NOUNS: Partial<Record<OciErrorCode, string>> = { MANIFEST_UNKNOWN: 'manifest', BLOB_UNKNOWN: 'blob' };
/** Statuses of servers that are overloaded, restarting, or waiting in vain for another server. */
const MOMENTARY = [408, 425, 500, 502, 503, 504];
/** Statuses that refuse the request for good: a retry does not help. */
const FINAL = [400, 402, 405, 406, 409, 410, 411, 412, 413, 414, 415, 421, 422, 426, 428, 431, 451, 501, 505];

/** The Retry-After of a 429 that has none. Public ECR allows one pull a second, and an index and
 *  its manifest are two (aws/aws-lambda-web-adapter issue 429). */
const ONE_SECOND = 1;

/** Whether the pulls that Docker Hub allows in six hours are used up. */
function isUsedUp(headers: Reply['headers']): boolean {
  return Number.parseInt(String(headers['ratelimit-remaining'] ?? ''), 10) === 0;
}

/** Creates the error for an unexpected answer. */
export function refusal({ status, headers, loginRefused }: Reply, context: RefusalContext): OciError {
  const { host, repository, absent, trusted } = context;
  const retryAfter = parseRetryAfter(headers['retry-after']) ?? (status === 429 && !isUsedUp(headers) ? ONE_SECOND : undefined);
  const after = retryAfter === undefined ? {} : { retryAfter };
  const say = (own: string) => (trusted ? (context.words ?? own) : context.words === undefined ? own : `${own}: ${context.words}`);
  switch (status) {
    case 401:
      return new UpstreamError('object', 'UNAUTHORIZED', say(login(context, loginRefused)));
    case 403:
      if (trusted && headers[ERROR_CODE_HEADER] === REFUSED_BY_POLICY)
        return new OciError('DENIED', say(`registry.policy refuses ${repository}`), { origin: 'policy' });
      return new UpstreamError('object', 'DENIED', say(`${host} does not allow reading ${repository}`));
    case 404: {
      const noun = NOUNS[absent] === undefined ? `repository ${repository}` : `such ${NOUNS[absent]} in ${repository}`;
      const code = trusted && headers[ERROR_CODE_HEADER] === 'NAME_UNKNOWN' ? 'NAME_UNKNOWN' : absent;
      if (context.ofRegistry) return new UpstreamError('object', code, say(`${host} has no ${noun}`));
      return new UpstreamError(
        'object',
        'UNAVAILABLE',
        `${host} answers 404 as a web server does, not as a registry: check its URL, and whether it is up`,
      );
    }
    case 416: {
      const size = /\/(\d{1,15})$/.exec(String(headers['content-range'] ?? ''))?.[1];
      return new UpstreamError(
        'object',
        'RANGE_INVALID',
        `${host} has no bytes in that range`,
        size === undefined ? {} : { size: Number(size) },
      );
    }
    case 429:
      return new UpstreamError(
        'moment',
        'TOOMANYREQUESTS',
        say(`${host} allows no more requests for now: wait, log in, or use a mirror`),
        after,
      );
    default:
      if (FINAL.includes(status))
        return new UpstreamError('object', 'DENIED', say(`${host} refuses this request for ${repository} (${status})`));
      return new UpstreamError(MOMENTARY.includes(status) ? 'moment' : 'object', 'UNAVAILABLE', say(`${host} answers ${status}`), after);
  }
}

function login({ host, repository, advice }: RefusalContext, loginRefused: boolean): string {
  return loginRefused
    ? `${host} requires a login for ${repository}, or has no such repository: ${advice}`
    : `${host} refuses the login for ${repository}: ${advice}`;
}

const MAX_WORDS = 500;

/** Reads the message in an error's body (distribution specification, "Error Codes").
 *  @returns `ofRegistry`: it has the specification's form */
export function parseErrorBody(bytes: Uint8Array): { words: string | undefined; ofRegistry: boolean } {
  let document: unknown;
  try {
    document = JSON.parse(Buffer.from(bytes).toString());
  } catch {
    return { words: undefined, ofRegistry: false };
  }
  const errors: unknown = typeof document === 'object' && document !== null && 'errors' in document ? document.errors : undefined;
  if (!Array.isArray(errors)) return { words: undefined, ofRegistry: false };
  const [first] = errors as ({ code?: unknown; message?: unknown; detail?: unknown } | null)[];
  const words = [first?.message, first?.detail, first?.code].find((text): text is string => typeof text === 'string' && text.trim() !== '');
  // Control characters would affect the terminal of a person who reads the log.
  return {
    words: words
      ?.replace(/\p{Cc}+/gu, ' ')
      .trim()
      .slice(0, MAX_WORDS),
    ofRegistry: true,
  };
}

/** Whether the other end closed the connection instead of answering, as it does with one that was
 *  idle for too long. */
export function wasHungUp(error: unknown): boolean {
  const { code } = ((error as Error).cause ?? {}) as NodeJS.ErrnoException;
  return isOciError(error, 'UNAVAILABLE') && ['ECONNRESET', 'EPIPE', 'UND_ERR_SOCKET'].includes(code ?? '');
}

/** For the metrics. */
export function outcomeOf(error: unknown): 'absent' | 'refused' | 'limited' | 'failed' | 'proxy' {
  if (isAbsent(error)) return 'absent';
  if (isOciError(error, 'UNAUTHORIZED', 'DENIED')) return 'refused';
  if (isOciError(error, 'TOOMANYREQUESTS')) return 'limited';
  return isOciError(error) && error.origin === 'proxy' ? 'proxy' : 'failed';
}
