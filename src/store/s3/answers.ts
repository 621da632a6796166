import type { S3Client, ServiceInputTypes, ServiceOutputTypes } from '@aws-sdk/client-s3';
import type { DeserializeMiddleware } from '@smithy/types';
import { ForeignAnswer, isSigned } from './errors.ts';

/** What is learned from the headers of S3's answers. */
export interface Lessons {
  /** S3's clock is so many ms ahead of this machine's. */
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

/** Why an answer cannot be S3's own; undefined: it may be. Whoever stands in front of S3 (an ingress that has lost its route, a login page, a
 *  proxy) answers in S3's place, with statuses that would mean something if S3 had said them: a 404 that nothing is stored, a 200 that a write
 *  has been kept. */
export function foreignness({ command, status, headers }: AnswerHead): string | undefined {
  if (isSigned(headers)) return undefined;
  const type = headers['content-type'] ?? '';
  if (status >= 300) {
    // An error of S3 is an XML document; that of a HEAD has no body, and often no type.
    return type === '' || /\bxml\b|octet-stream/i.test(type) ? undefined : `an answer ${status} of type ${type} is not S3's own`;
  }
  if (/^text\/html/i.test(type)) return `an answer ${status} of type ${type} is not S3's own`;
  const tagged = headers['etag'] !== undefined || (command === 'GetObjectCommand' && headers['last-modified'] !== undefined);
  if (TAGGED.includes(command) && !tagged) return `an answer ${status} without an ETag is not S3's own`;
  return undefined;
}

/** How far S3's clock is ahead, in ms, as an answer's Date says; undefined: it says nothing, or a cache's. */
export function clockOffset(headers: Headers, now = Date.now()): number | undefined {
  const { date, age } = headers;
  const told = date === undefined || age !== undefined ? NaN : Date.parse(date);
  return Number.isNaN(told) ? undefined : told - now;
}

/** Looks at every answer that `client` gets before the SDK makes anything of it: one that is not S3's own is thrown as a ForeignAnswer. */
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

/** The head of an answer as the SDK's middleware gets it. */
export function headOf(response: unknown): { status: number; headers: Headers; body?: { destroy?(): void } } {
  const { statusCode: status, ...rest } = response as { statusCode: number; headers: Headers; body?: { destroy?(): void } };
  return { status, ...rest };
}
