import type { IncomingMessage } from 'node:http';
import { GetObjectCommand, type GetObjectCommandOutput } from '@aws-sdk/client-s3';
import { streamSource } from '../../io/arrivals.ts';
import { createBody, mapBody } from '../../io/body.ts';
import { isOciError, OciError } from '../../oci/error.ts';
import { formatRange, parseContentRange, resolveRange, type ByteRange, type RangeRequest } from '../../oci/range.ts';
import type { Store, StoredContent } from '../store.ts';
import { statusOf, unsatisfiable } from './errors.ts';
import { unknownSize, type S3Access, type Stat } from './stat.ts';

export interface ReadOptions extends S3Access {
  stat: Stat;
  /** Translates an error for the operator. */
  explain(this: void, error: unknown, doing: string): OciError;
}

type ReadContext = Parameters<Store['read']>[1];

/** Reads objects, and ranges of them, each with one GET. */
export function createRead(options: ReadOptions): Store['read'] {
  return async function read(key, context): Promise<StoredContent | undefined> {
    const { range, signal } = context;
    let found: GetObjectCommandOutput | undefined;
    try {
      found = await get(options, key, context);
    } catch (error) {
      if (range === undefined || !isOciError(error, 'RANGE_INVALID')) throw error;
      const part = await retriedRange(options, key, { range, error, signal });
      return part === undefined ? undefined : read(key, { signal, range: part });
    }
    return found === undefined ? undefined : contentOf(options, key, { found, range, signal });
  };
}

async function get({ client, attempt, target }: ReadOptions, key: string, { signal, within, range }: ReadContext) {
  const at = await target(key, signal);
  const command = new GetObjectCommand({ ...at, Range: range === undefined ? undefined : formatRange(range) });
  const call = { doing: `reading ${key}`, kind: 'read', signal, limit: within, mayBeAbsent: true } as const;
  return attempt(call, (abortSignal) =>
    client.send(command, { abortSignal }).catch((error: unknown) => {
      throw statusOf(error) === 416 ? unsatisfiable(error) : error;
    }),
  );
}

async function contentOf(
  { connections, explain, stat }: ReadOptions,
  key: string,
  { found, range, signal }: Pick<ReadContext, 'range' | 'signal'> & { found: GetObjectCommandOutput },
): Promise<StoredContent> {
  const body = found.Body as IncomingMessage;
  try {
    // A proxy that sends the body in chunks drops the size; without a size, a truncated body goes
    // unnoticed.
    const length = found.ContentLength ?? (found.ContentRange === undefined ? (await stat(key, { signal }))?.size : undefined);
    const part = partOf(key, range, { ...found, ContentLength: length });
    const failure = (error: unknown): OciError => explain(error, `reading ${key}`);
    const raw = found.ContentLength === undefined ? undefined : connections.takeOver(body, found.ContentLength);
    const source = raw ?? streamSource(body, (error) => error as Error);
    const given = mapBody(createBody(source, signal), { onError: failure });
    return { size: part.size, modified: found.LastModified ?? new Date(), range: part.range, body: given };
  } catch (error) {
    body.destroy();
    throw error;
  }
}

/** Handles S3's answer that a range selects no byte. Not every server reports the object's size
 *  then (versitygw does not for an empty object), and some refuse what RFC 9110 §14.1.2 allows: the
 *  last N bytes of an object that has fewer (gofakes3, rclone).
 *  @returns the range to request instead; undefined: there is no such object
 *  @throws OciError RANGE_INVALID, with the size */
async function retriedRange(
  { stat }: ReadOptions,
  key: string,
  { range, error, signal }: { range: RangeRequest; error: OciError; signal: AbortSignal },
): Promise<Required<ByteRange> | undefined> {
  const size = error.size ?? (await stat(key, { signal }))?.size;
  if (size === undefined) return undefined;
  const part = resolveRange(range, size);
  const isAsked = 'start' in range && range.start === part.start && range.end === part.end;
  if (isAsked) throw unsatisfiable(error.cause, size);
  return part;
}

/** Which bytes of an object S3 sends in answer to `range`, and the size of the object. Without this
 *  check the bytes of another range would be hashed as if they were the requested ones.
 *  @throws OciError RANGE_INVALID: the object has no such bytes; UNAVAILABLE: S3 sends another
 *  range, or does not say which, or packed bytes */
function partOf(
  key: string,
  range: RangeRequest | undefined,
  { ContentRange, ContentLength, ContentEncoding }: Pick<GetObjectCommandOutput, 'ContentRange' | 'ContentLength' | 'ContentEncoding'>,
): { range: Required<ByteRange> | undefined; size: number } {
  const origin = 'storage';
  if (ContentEncoding !== undefined && !['', 'identity', 'aws-chunked'].includes(ContentEncoding)) {
    throw new OciError('UNAVAILABLE', `something between the registry and S3 compresses ${key} (content-encoding ${ContentEncoding})`, {
      origin,
    });
  }
  const sent = parseContentRange(ContentRange);
  const size = ContentRange === undefined ? ContentLength : sent?.size;
  if (size === undefined) throw unknownSize(key);
  const { start, end } = sent ?? { start: 0, end: size - 1 };
  if (range === undefined && sent === undefined) return { range: undefined, size };
  const part = resolveRange(range ?? { start: 0 }, size);
  const isWhole = ContentLength === undefined || ContentLength === end - start + 1;
  if (start !== part.start || end !== part.end || !isWhole) {
    throw new OciError('UNAVAILABLE', `S3 sent another range than the requested bytes ${part.start}-${part.end} of ${key}`, { origin });
  }
  return { range: range === undefined ? undefined : part, size };
}
