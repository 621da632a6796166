import type { IncomingMessage } from 'node:http';
import { readAll } from '../io/body.ts';
import { OciError } from '../oci/error.ts';

const MAX_BYTES = 65_536;

/** The body of a request as JSON; `{}` without a body.
 *  @throws OciError NAME_INVALID: it is too long, has another type, or is not JSON */
export async function readJson(request: IncomingMessage): Promise<unknown> {
  const type = request.headers['content-type'] ?? 'application/json';
  if (!/^application\/json(?:;|$)/i.test(type)) throw new OciError('NAME_INVALID', 'the body must be application/json');
  const bytes = await readAll(request, MAX_BYTES);
  if (bytes === undefined) throw new OciError('NAME_INVALID', `the body is longer than ${MAX_BYTES} bytes`);
  try {
    return bytes.length === 0 ? {} : (JSON.parse(String(bytes)) as unknown);
  } catch (cause) {
    throw new OciError('NAME_INVALID', 'the body is not JSON', { cause });
  }
}
