import type { ServerResponse } from 'node:http';
import { ERROR_CODE_HEADER, isPolicyRefusal, OciError, REFUSED_BY_POLICY, type OciErrorCode } from '../oci/error.ts';

/** Sent with every response below /v2/: without it, clients do not recognise a registry. */
export const API_VERSION = ['Docker-Distribution-Api-Version', 'registry/2.0'] as const;

/** A bad request is the client's fault (4xx), a bad response an upstream's (502). */
const STATUS: Record<OciErrorCode, number> = {
  BLOB_UNKNOWN: 404,
  BLOB_UPLOAD_INVALID: 400,
  BLOB_UPLOAD_UNKNOWN: 404,
  DENIED: 403,
  DIGEST_INVALID: 400,
  MANIFEST_BLOB_UNKNOWN: 404,
  MANIFEST_INVALID: 502,
  MANIFEST_UNKNOWN: 404,
  NAME_INVALID: 400,
  NAME_UNKNOWN: 404,
  PAGINATION_NUMBER_INVALID: 400,
  RANGE_INVALID: 416,
  SIZE_INVALID: 502,
  TAG_INVALID: 400,
  TOOMANYREQUESTS: 429,
  UNAUTHORIZED: 401,
  UNAVAILABLE: 503,
  UNKNOWN: 500,
  UNSUPPORTED: 405,
};

/** Answers a failed request: with the specification's JSON if the head has not been sent yet, else
 *  by cutting the connection.
 *  @returns the status */
export function sendError(
  response: ServerResponse,
  error: unknown,
  { head, statuses = {} }: { head: boolean; statuses?: Partial<Record<OciErrorCode, number>> },
): number {
  const known = error instanceof OciError ? error : new OciError('UNKNOWN', 'the registry failed unexpectedly; its log says more');
  const status = statuses[known.code] ?? statusOf(known);
  if (response.headersSent) {
    // For HTTP/1.0, a body without a length ends when the connection ends, unless that is reset.
    if (response.req.httpVersion === '1.0') response.socket?.resetAndDestroy();
    else response.destroy();
    return status;
  }
  const body = Buffer.from(JSON.stringify({ errors: [{ code: known.code, message: known.message }] }));
  const headers = [
    ...API_VERSION,
    'Content-Type',
    'application/json; charset=utf-8',
    'Content-Length',
    String(body.length),
    ERROR_CODE_HEADER,
    isPolicyRefusal(known) ? REFUSED_BY_POLICY : known.code,
  ];
  if (known.code === 'RANGE_INVALID' && known.size !== undefined) headers.push('Content-Range', `bytes */${known.size}`);
  if (known.retryAfter !== undefined) headers.push('Retry-After', String(Math.max(1, Math.ceil(known.retryAfter))));
  response.writeHead(status, headers);
  response.end(head ? undefined : body);
  return status;
}

function statusOf(error: OciError): number {
  const elsewhere = error.origin === 'upstream' || error.origin === 'proxy';
  return error.code === 'UNAVAILABLE' && elsewhere ? 502 : STATUS[error.code];
}
