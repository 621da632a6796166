import type { IncomingMessage } from 'node:http';
import {
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  type GetObjectCommandOutput,
  type HeadObjectCommandInput,
  type HeadObjectCommandOutput,
} from '@aws-sdk/client-s3';
import type { DeserializeMiddleware } from '@smithy/types';
import { getSignedUrl } from '@aws-sdk/s3-request-presigner';
import { streamSource } from '../../io/arrivals.ts';
import { createBody, mapBody } from '../../io/body.ts';
import { isOciError, OciError } from '../../oci/error.ts';
import { formatRange, parseContentRange, resolveRange, type ByteRange, type RangeRequest } from '../../oci/range.ts';
import { checkKey, checkPrefix, isKey, V1 } from '../keys.ts';
import type { StoreContext, StoredContent, StoredObject } from '../store.ts';
import { headOf, watchAnswers } from './answers.ts';
import { createAvailability } from './availability.ts';
import { createBucket } from './bucket.ts';
import { createClient, createConnections } from './client.ts';
import { createCorrections } from './corrections.ts';
import { codeOf, describe, statusOf, unsatisfiable } from './errors.ts';
import { headObject, readHead, type HeadAnswer } from './head.ts';
import { listObjects } from './listing.ts';
import type { S3Options, S3Store } from './options.ts';
import { createPrefix } from './prefix.ts';
import { createPutter, type Target } from './put.ts';
import { createStreams, MIN_PART_SIZE } from './streams.ts';
import { createRemover } from './versions.ts';

/** Keeps each object under its key in a bucket of any S3-compatible store. Nothing rests on conditional writes. */
export function s3(options: S3Options): S3Store {
  const { bucket } = options;
  const connections = createConnections(options);
  const corrections = createCorrections(options);
  const { region } = corrections;
  const client = createClient(options, { endpoint: options.endpoint, region, connections });
  const { redirectEndpoint } = options;
  const presigner = redirectEndpoint === undefined ? client : createClient(options, { endpoint: redirectEndpoint, region, connections });
  corrections.apply(client);
  watchAnswers(client, corrections);
  const explain = (error: unknown, doing: string): OciError => describe(error, doing, bucket);
  const { attempt } = createAvailability({ describe: explain, corrected: corrections.corrected });
  const prefix = createPrefix(options.prefix, async (given, signal) => {
    const page = await attempt({ doing: 'looking for the prefix', kind: 'read', signal }, (abortSignal) =>
      client.send(new ListObjectsV2Command({ Bucket: bucket, Prefix: `${given}${V1}`, MaxKeys: 1 }), { abortSignal }),
    ).catch((error: unknown) => {
      if (codeOf((error as Error).cause) !== 'NoSuchBucket') throw error;
      return undefined;
    });
    return (page?.Contents ?? []).length > 0;
  });
  const target = async (key: string, signal: AbortSignal): Promise<Target> => {
    const checked = checkKey(key);
    signal.throwIfAborted();
    return { Bucket: bucket, Key: (await prefix(signal)) + checked };
  };
  const putter = createPutter(client, options);
  const remove = createRemover(client, attempt, options);
  const preparation = createBucket({ client, attempt, options, prefix });

  async function askHead(at: Target, { by, signal }: { by: string | undefined; signal: AbortSignal }): Promise<HeadAnswer> {
    if (by !== undefined) return headObject(by, { ...connections, signal, clock: corrections.clock });
    let head: HeadAnswer | undefined;
    const command = new HeadObjectCommand(at);
    const note: DeserializeMiddleware<HeadObjectCommandInput, HeadObjectCommandOutput> = (next) => async (args) => {
      const result = await next(args);
      const { status, headers } = headOf(result.response);
      head = readHead(status, headers);
      return result;
    };
    command.middlewareStack.add(note, { step: 'deserialize', priority: 'low' });
    await client.send(command, { abortSignal: signal }).catch((error: unknown) => {
      if (head === undefined) throw error;
    });
    return head ?? 'unclear';
  }

  /** GETs the first byte of an object if the response to a HEAD was not conclusive. */
  async function askByGet(at: Target, signal: AbortSignal): Promise<StoredObject> {
    try {
      const found = await client.send(new GetObjectCommand({ ...at, Range: 'bytes=0-0' }), { abortSignal: signal });
      (found.Body as IncomingMessage).destroy();
      const size = parseContentRange(found.ContentRange)?.size ?? (found.ContentRange === undefined ? found.ContentLength : undefined);
      if (size === undefined) throw unknownSize(at.Key);
      return { size, modified: found.LastModified ?? new Date() };
    } catch (error) {
      if (statusOf(error) === 416) return { size: 0, modified: new Date() };
      throw error;
    }
  }

  async function stat(key: string, { signal, within, by }: StoreContext & { by?: string }): Promise<StoredObject | undefined> {
    const at = await target(key, signal);
    const call = { doing: `looking up ${key}`, kind: 'read', signal, limit: within, mayBeAbsent: true } as const;
    const answer = await attempt(call, (abortSignal) => askHead(at, { by, signal: abortSignal }));
    if (answer === undefined || answer === 'absent') return undefined;
    return answer === 'unclear' ? attempt(call, (abortSignal) => askByGet(at, abortSignal)) : answer.found;
  }

  async function read(key: string, { signal, within, range }: Parameters<S3Store['read']>[1]): Promise<StoredContent | undefined> {
    const at = await target(key, signal);
    const Range = range === undefined ? undefined : formatRange(range);
    const call = { doing: `reading ${key}`, kind: 'read', signal, limit: within, mayBeAbsent: true } as const;
    const found = await attempt(call, (abortSignal) =>
      client.send(new GetObjectCommand({ ...at, Range }), { abortSignal }).catch((error: unknown) => {
        throw statusOf(error) === 416 ? unsatisfiable(error) : error;
      }),
    ).catch((error: unknown) => {
      if (range === undefined || !isOciError(error, 'RANGE_INVALID')) throw error;
      return retryRange(key, range, { error, signal });
    });
    if (found === undefined || 'body' in found) return found;
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
   *  then (versitygw does not for an empty object), and some refuse what RFC 9110 §14.1.2 allows:
   *  the last N bytes of an object that has fewer (gofakes3, rclone).
   *  @throws OciError RANGE_INVALID, with the size */
  async function retryRange(
    key: string,
    range: RangeRequest,
    { error, signal }: { error: OciError; signal: AbortSignal },
  ): Promise<StoredContent | undefined> {
    const size = error.size ?? (await stat(key, { signal }))?.size;
    if (size === undefined) return undefined;
    const part = resolveRange(range, size);
    const isAsked = 'start' in range && range.start === part.start && range.end === part.end;
    if (isAsked) throw unsatisfiable(error.cause, size);
    return read(key, { signal, range: part });
  }

  return {
    stat,
    read,
    minPartSize: MIN_PART_SIZE,
    ...createStreams({ client, attempt, target, read, options }),

    async write(key, source, { signal }) {
      const at = await target(key, signal);
      await attempt({ doing: `writing ${key}`, kind: 'write', signal, limit: Infinity }, () =>
        putter.put({ key, target: at, source, signal }),
      );
    },

    async remove(key, { signal }) {
      await remove(`removing ${key}`, await target(key, signal), signal);
    },

    async *list(start, { signal, after }) {
      const checked = checkPrefix(start);
      signal.throwIfAborted();
      const base = await prefix(signal);
      const objects = listObjects({ prefix: base + checked, after: after === undefined ? undefined : base + after }, async (request) => {
        const page = await attempt({ doing: `listing ${start}`, kind: 'read', signal }, (abortSignal) =>
          client.send(new ListObjectsV2Command({ Bucket: bucket, ...request }), { abortSignal }),
        );
        return page ?? { $metadata: {} };
      });
      for await (const object of objects) {
        const key = object.key.slice(base.length);
        // Other programs may put objects into the bucket, and some servers list folders: v1/blobs/.
        if (isKey(key)) yield { ...object, key };
      }
    },

    prepare: ({ signal }) => preparation.prepare(signal),

    async presign(key, ttl) {
      const at = await target(key, new AbortController().signal);
      const expiresIn = Math.max(1, Math.floor(ttl / 1000));
      const end = Date.now() + 1000 * expiresIn;
      const signing = { expiresIn, signingDate: corrections.now() };
      try {
        const [given, get, head] = await Promise.all([
          options.credentials === undefined ? client.config.credentials() : undefined, // those of files end when the files change
          getSignedUrl(presigner, new GetObjectCommand(at), signing),
          getSignedUrl(client, new HeadObjectCommand(at), signing),
        ]);
        return { get, head, until: Math.min(end, given?.expiration?.getTime() ?? end) };
      } catch (error) {
        throw explain(error, `signing for ${key}`);
      }
    },

    close() {
      client.destroy();
      if (presigner !== client) presigner.destroy();
      return Promise.resolve();
    },
  };
}

/** Which bytes of an object S3 sends in answer to `range`, and the size of the object. Without this check the bytes of another range would be
 *  hashed as if they were the requested ones.
 *  @throws OciError RANGE_INVALID: the object has no such bytes; UNAVAILABLE: S3 sends another range, or does not say which, or packed bytes */
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
    throw new OciError('UNAVAILABLE', `S3 was asked for bytes ${part.start}-${part.end} of ${key} and sends others`, { origin });
  }
  return { range: range === undefined ? undefined : part, size };
}

function unknownSize(key: string): OciError {
  return new OciError('UNAVAILABLE', `S3 does not say how large ${key} is, or which part of it it sends`, { origin: 'storage' });
}
