import { OciError, type OciErrorCode } from '../oci/error.ts';
import { parseRetryAfter, type Reply } from './endpoint.ts';

/** What was asked, and what the answer's body says. */
export interface Refused {
  repository: string;
  absent: OciErrorCode;
  told: string | undefined;
}

/** The error of an answer that nobody asked for. */
export function refusal(host: string, { status, headers }: Reply, { repository, absent, told }: Refused): OciError {
  const origin = 'upstream';
  const after = parseRetryAfter(headers);
  const retryAfter = after === undefined ? {} : { retryAfter: after };
  switch (status) {
    case 401:
      return new OciError('UNAUTHORIZED', told ?? `${host} refuses the login for ${repository}: check its credentials`, { origin });
    case 403:
      return new OciError('DENIED', told ?? `${host} does not allow reading ${repository}`, { origin });
    case 404:
      return new OciError(absent, told ?? `${host} has no such thing in ${repository}`, { origin });
    case 416: {
      const size = /\/(\d{1,15})$/.exec(String(headers['content-range'] ?? ''))?.[1];
      return new OciError('RANGE_INVALID', `${host} has nothing in that range`, {
        origin,
        ...(size === undefined ? {} : { size: Number(size) }),
      });
    }
    case 429:
      return new OciError('TOOMANYREQUESTS', told ?? `${host} allows no more pulls for now: wait, log in, or use a mirror`, {
        origin,
        ...retryAfter,
      });
    default:
      return new OciError('UNAVAILABLE', told ?? `${host} answers ${status}`, { origin, ...retryAfter });
  }
}

/** The message in an error's body (distribution specification, "Error Codes"). */
export function parseTold(bytes: Uint8Array): string | undefined {
  try {
    const { errors } = JSON.parse(Buffer.from(bytes).toString()) as { errors?: { message?: unknown }[] };
    const message = errors?.[0]?.message;
    return typeof message === 'string' && message !== '' ? message : undefined;
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError) return undefined; // it is shaped otherwise
    throw error;
  }
}
