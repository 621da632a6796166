/** The codes a client may see: those of the distribution specification 1.1 ("Error Codes"), and
 *  those that registries have long used in addition: PAGINATION_NUMBER_INVALID, RANGE_INVALID,
 *  UNAVAILABLE and UNKNOWN. */
export type OciErrorCode =
  | 'BLOB_UNKNOWN'
  | 'BLOB_UPLOAD_INVALID'
  | 'BLOB_UPLOAD_UNKNOWN'
  | 'DENIED'
  | 'DIGEST_INVALID'
  | 'MANIFEST_BLOB_UNKNOWN'
  | 'MANIFEST_INVALID'
  | 'MANIFEST_UNKNOWN'
  | 'NAME_INVALID'
  | 'NAME_UNKNOWN'
  | 'PAGINATION_NUMBER_INVALID'
  | 'RANGE_INVALID'
  | 'SIZE_INVALID'
  | 'TAG_INVALID'
  | 'TOOMANYREQUESTS'
  | 'UNAUTHORIZED'
  | 'UNAVAILABLE'
  | 'UNKNOWN'
  | 'UNSUPPORTED';

export interface OciErrorOptions {
  cause?: unknown;
  /** The part that failed, for logs and metrics; a client sees only code and message. policy:
   *  nothing failed, registry.policy refuses the request. */
  origin?: 'policy' | 'proxy' | 'storage' | 'upstream';
  /** After how many seconds to try again. */
  retryAfter?: number;
  /** The bytes that a body has returned are wrong: it must not be continued from another source. */
  corrupt?: boolean;
  /** RANGE_INVALID: the whole blob's size in bytes, for `Content-Range: bytes *\/N`. */
  size?: number;
}

/** The only error that crosses rooms. Its message is for the user whose pull failed: it says what
 *  is wrong, and what to do. */
export class OciError extends Error {
  override readonly name = 'OciError';
  readonly code: OciErrorCode;
  readonly origin: OciErrorOptions['origin'];
  readonly retryAfter: number | undefined;
  readonly size: number | undefined;
  readonly corrupt: boolean;

  constructor(code: OciErrorCode, message: string, options: OciErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.origin = options.origin;
    this.retryAfter = options.retryAfter;
    this.size = options.size;
    this.corrupt = options.corrupt ?? false;
  }
}

/** The response header that carries the error's code between parts of this program: an answer to
 *  HEAD has no body. */
export const ERROR_CODE_HEADER = 'x-kube-registry-error';
/** The value of that header for a refusal by registry.policy: it is final, so that an agent does
 *  not ask upstream instead. */
export const REFUSED_BY_POLICY = 'POLICY';

/** Whether registry.policy refuses. */
export function isPolicyRefusal(error: unknown): boolean {
  return error instanceof OciError && error.origin === 'policy';
}

/** True for an OciError of one of `codes`, or of any code when none is given. */
export function isOciError(error: unknown, ...codes: OciErrorCode[]): error is OciError {
  return error instanceof OciError && (codes.length === 0 || codes.includes(error.code));
}

const ABSENT: OciErrorCode[] = ['BLOB_UNKNOWN', 'MANIFEST_UNKNOWN', 'NAME_UNKNOWN'];

/** True if the server answered, and its answer is that the object does not exist. */
export function isAbsent(error: unknown): error is OciError {
  return isOciError(error, ...ABSENT);
}
