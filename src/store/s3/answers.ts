import type { S3Client, ServiceInputTypes, ServiceOutputTypes } from '@aws-sdk/client-s3';
import type { DeserializeMiddleware } from '@smithy/types';
import { ForeignAnswer, isSigned } from './errors.ts';

/** Findings from the headers of S3's responses. */
export interface Lessons {
  /** S3's clock is this many ms ahead of this machine's. */
  clock(this: void, offset: number): void;
}

/** The name of the middleware that `watchAnswers` adds. */
const WATCH = 'watchAnswers';

type Headers = Readonly<Record<string, string | undefined>>;

export interface AnswerHead {
  command: string;
  status: number;
  headers: Headers;
}

/** Calls whose success carries an ETag. */
const TAGGED = ['GetObjectCommand', 'PutObjectCommand', 'UploadPartCommand'];

/** The reason why a response cannot come from S3; undefined: it may. A server in front of S3 (an
 *  ingress that has lost its route, a login page, a proxy) may answer in S3's place, with a status
 *  that would be wrong to believe: a 404 for a stored object, or a 200 for a write that was not
 *  stored. */
export function foreignness({ command, status, headers }: AnswerHead): string | undefined {
  if (isSigned(headers)) return undefined;
  const type = headers['content-type'] ?? '';
  if (status >= 300) {
    // S3 sends errors as XML documents; the error of a HEAD has no body, and often no type.
    return type === '' || /\bxml\b|octet-stream/i.test(type) ? undefined : `an answer ${status} of type ${type} is not S3's own`;
  }
  if (/^text\/html/i.test(type)) return `an answer ${status} of type ${type} is not S3's own`;
  const tagged = headers['etag'] !== undefined || (command === 'GetObjectCommand' && headers['last-modified'] !== undefined);
  if (TAGGED.includes(command) && !tagged) return `an answer ${status} without an ETag is not S3's own`;
  return undefined;
}

/** How far S3's clock is ahead by the response's Date, in ms; undefined: there is no Date, or it
 *  comes from a cache. */
export function clockOffset(headers: Headers, now = Date.now()): number | undefined {
  const { date, age } = headers;
  const serverTime = date === undefined || age !== undefined ? NaN : Date.parse(date);
  return Number.isNaN(serverTime) ? undefined : serverTime - now;
}

/** Checks every response to `client` before the SDK parses it, and throws a ForeignAnswer if it
 *  does not come from S3. */
export function watchAnswers(client: S3Client, lessons: Lessons): void {
  const watch: DeserializeMiddleware<ServiceInputTypes, ServiceOutputTypes> = (next, context) => async (args) => {
    const result = await next(args);
    const { status, headers, body } = headOf(result.response);
    const offset = clockOffset(headers);
    if (offset !== undefined) lessons.clock(offset);
    const foreign = foreignness({ command: context.commandName ?? '', status, headers });
    if (foreign === undefined) return result;
    body?.destroy?.();
    throw new ForeignAnswer(status, foreign);
  };
  client.middlewareStack.addRelativeTo(watch, { name: WATCH, relation: 'after', toMiddleware: 'deserializerMiddleware', override: true });
}

/** The head of a response as the SDK's middleware receives it. */
export function headOf(response: unknown): { status: number; headers: Headers; body?: { destroy?(): void } } {
  const { statusCode: status, ...rest } = response as { statusCode: number; headers: Headers; body?: { destroy?(): void } };
  return { status, ...rest };
}
