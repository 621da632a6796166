import { OciError } from '../../oci/error.ts';

/** Headers that only S3-compatible servers send, some in a vendor's own dialect. */
const SIGNATURE = /^x-(?:amz-.+|(?:oss|cos|obs|tos|bce|ks3|qs|kss|jdcloud|minio)-request-id)$/;
/** Error codes for a missing object. `NotFound`: the SDK's name for a HEAD's 404. */
const ABSENCES = ['NoSuchKey', 'NoSuchVersion'];
const MAX_WORDS = 300;
const NOT_IMPLEMENTED = 501;

/** A response from S3's address that another server sent: a load balancer, an ingress, a login
 *  page. */
export class ForeignAnswer extends Error {
  override readonly name = 'ForeignAnswer';
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** S3 has ended an upload before all of its parts arrived, as a lifecycle rule does. A new upload
 *  may succeed. */
export class UploadEnded extends Error {
  override readonly name = 'UploadEnded';
}

/** How a call to S3 failed, which decides what to do next. absent: S3 says that there is no such
 *  object. refused: S3 refuses. busy: the server answers, but is unable now; a retry may help.
 *  reset: the connection was closed without a response. silent: nothing listens, or nothing
 *  answers. */
export type Failure = 'absent' | 'refused' | 'busy' | 'reset' | 'silent';

/** The HTTP status of a response; undefined: none arrived. */
export function statusOf(error: unknown): number | undefined {
  if (error instanceof ForeignAnswer) return error.status;
  return (error as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode;
}

/** S3's own name of an error, from its error document; undefined: the response had none, as that of
 *  a HEAD. */
export function codeOf(error: unknown): string | undefined {
  const { Code } = error as { Code?: unknown };
  return typeof Code === 'string' && Code !== '' ? Code : undefined;
}

export function headersOf(error: unknown): Readonly<Record<string, string | undefined>> {
  return (error as { $response?: { headers?: Record<string, string> } }).$response?.headers ?? {};
}

/** Another request changes the same object or bucket now; the second: or removes the directory that
 *  the object is to lie in (versitygw). */
const CONFLICTS = ['OperationAborted', 'ExistingObjectIsDirectory'];

/** Whether the response has a header that only S3 sends. */
export function isSigned(headers: Readonly<Record<string, unknown>>): boolean {
  return Object.keys(headers).some((name) => SIGNATURE.test(name));
}

const RESETS = ['ECONNRESET', 'EPIPE', 'ECONNABORTED', 'ERR_STREAM_PREMATURE_CLOSE'];
const SILENCES = ['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH', 'ETIMEDOUT'];

export function failureOf(error: unknown): Failure {
  const status = statusOf(error);
  if (error instanceof ForeignAnswer || error instanceof UploadEnded) return 'busy';
  if (status !== undefined) {
    if (status === 404 && ABSENCES.includes(codeOf(error) ?? '')) return 'absent';
    if (status < 300) return 'busy'; // an answer that the SDK cannot read
    const passing = (status >= 500 && status !== NOT_IMPLEMENTED) || status === 429 || status === 408;
    return passing || CONFLICTS.includes(codeOf(error) ?? '') ? 'busy' : 'refused';
  }
  const { name, code = '', message } = error as NodeJS.ErrnoException;
  // Checked before the name: the SDK calls a connection that was reset a TimeoutError too.
  if (RESETS.includes(code) || message === 'socket hang up') return 'reset';
  return SILENCES.includes(code) || ['TimeoutError', 'AbortError'].includes(name) ? 'silent' : 'busy';
}

/** Translates a failure for the operator, with S3's own words. `retryAfter` is set if waiting may
 *  help. */
export function describe(error: unknown, doing: string, bucket: string): OciError {
  if (error instanceof OciError) return error;
  const status = statusOf(error);
  const options = { cause: error, origin: 'storage' } as const;
  if (error instanceof ForeignAnswer || error instanceof UploadEnded) {
    return new OciError('UNAVAILABLE', `${doing}: ${error.message}`, { ...options, retryAfter: 5 });
  }
  if (status !== undefined && status < 300) {
    return new OciError('UNAVAILABLE', `${doing} in ${bucket}: the response ${status} is not a document of S3`, {
      ...options,
      retryAfter: 5,
    });
  }
  const words = wordsOf(error);
  if (status === undefined) {
    const advice = UNTRUSTED.includes((error as NodeJS.ErrnoException).code ?? '')
      ? '; set storage.s3.ca to its certificate authority'
      : '';
    return new OciError('UNAVAILABLE', `S3 cannot be reached for ${doing}: ${words}${advice}`, { ...options, retryAfter: 5 });
  }
  const said = `${doing} in ${bucket}: ${status} ${words}`;
  const advice = adviceFor(error, bucket);
  if (advice !== undefined) return new OciError('UNAVAILABLE', `S3 refuses ${said}${advice}`, options);
  if (isDamage(error)) return new OciError('DIGEST_INVALID', `S3 rejects ${said}: the bytes sent do not match their digest`, options);
  if (['refused', 'absent'].includes(failureOf(error))) return new OciError('UNAVAILABLE', `S3 refuses ${said}`, options);
  return new OciError('UNAVAILABLE', `S3 fails at ${said}`, { ...options, retryAfter: 5 });
}

/** Codes of certificates that no known authority has signed. */
const UNTRUSTED = [
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
];

/** How to fix the refusals that operators meet. */
function adviceFor(error: unknown, bucket: string): string | undefined {
  const code = codeOf(error) ?? (error as Error).name;
  const region = headersOf(error)['x-amz-bucket-region'] ?? (error as { Region?: string }).Region;
  if (code === 'NoSuchBucket') return `; create the bucket ${bucket}, or set storage.s3.createBucket`;
  if (code === 'RequestTimeTooSkewed') return "; set this machine's clock, for example by NTP";
  if (region !== undefined && region !== '')
    return `; the bucket is in the region ${region}: set storage.s3.region, and the endpoint of that region`;
  if (code === 'InvalidAccessKeyId' || code === 'XAdminUserNotFound') return '; S3 does not know the access key ID';
  if (code === 'SignatureDoesNotMatch') return '; check the secret access key, and that no proxy rewrites the Host header or the path';
  if (code === 'ExpiredToken' || code === 'InvalidToken') return '; renew the session token';
  return statusOf(error) === 403 ? '; check the keys, their policy and the policy of the bucket' : undefined;
}

const DAMAGES = ['BadDigest', 'XAmzContentChecksumMismatch', 'XAmzContentSHA256Mismatch', 'InvalidDigest'];

function isDamage(error: unknown): boolean {
  return DAMAGES.includes(codeOf(error) ?? '');
}

function wordsOf(error: unknown): string {
  const { name, message, code } = error as NodeJS.ErrnoException;
  const title = codeOf(error) ?? (statusOf(error) === undefined ? (code ?? name) : name);
  // The SDK's own explanation of a response that it could not parse is not helpful.
  const useful =
    message !== '' && !/UnknownError|XML parse error|Deserialization error|^the answer is \d+$/.test(message) && message !== title;
  return useful ? `${title}: ${message.replace(/; if the root CA is installed locally.*/s, '').slice(0, MAX_WORDS)}` : title;
}

/** Translates S3's 416. A server that reports the object's size does so in the Content-Range header
 *  or in the error document. `found`: the size, if known otherwise. */
export function unsatisfiable(error: unknown, found?: number): OciError {
  const [, announced] = /^bytes \*\/(\d{1,15})$/.exec(headersOf(error)['content-range'] ?? '') ?? [];
  const size = found ?? announced ?? (error as { ActualObjectSize?: string }).ActualObjectSize;
  return new OciError('RANGE_INVALID', `the range lies outside the object${size === undefined ? '' : ` of ${size} bytes`}`, {
    cause: error,
    ...(size === undefined ? {} : { size: Number(size) }),
  });
}
