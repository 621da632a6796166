import type { IncomingMessage } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { setTimeout as delay } from 'node:timers/promises';
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateBucketCommand,
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import { getSignedUrl } from '@aws-sdk/s3-request-presigner';
import { NodeHttpHandler } from '@smithy/node-http-handler';
import { isOciError, OciError } from '../../oci/error.ts';
import { formatRange, parseContentRange, resolveRange, type ByteRange, type RangeRequest } from '../../oci/range.ts';
import { streamSource } from '../../io/arrivals.ts';
import { createBody, mapBody } from '../../io/body.ts';
import { SourceError } from '../failure.ts';
import { checkKey, checkPrefix } from '../keys.ts';
import { createRawSockets } from '../../http/raw/raw.ts';
import { headObject, type HeadOptions } from './head.ts';
import { upload } from './upload.ts';
import { raceAbort } from '../../async/race-abort.ts';
import type { Store, StoreContext, StoredObject, StoreSource } from '../store.ts';
import { backoff } from '../../async/backoff.ts';

export interface S3Options {
  bucket: string;
  region: string;
  endpoint?: string | undefined;
  forcePathStyle: boolean;
  createBucket: boolean;
  /** Put before every key. */
  prefix: string;
  /** Absent: the SDK's default chain. Asked each time the SDK wants to know: files may rotate. */
  credentials?: (() => Promise<{ accessKeyId: string; secretAccessKey: string }>) | undefined;
  /** Of S3 as clients reach it; absent: `endpoint`. */
  redirectEndpoint?: string | undefined;
}
/** URLs that are good for whoever has them, as long as they were signed for. */
export interface SignedUrls {
  /** Gives the object, at the endpoint that clients reach. */
  get: string;
  /** Asks for it, at the registry's own endpoint. */
  head: string;
  /** When they end, in ms since the epoch: with the credentials, when these go first. */
  until: number;
}
export interface S3Store extends Store {
  /** `by`: the key's `SignedUrls.head`. The same question, which costs little of the event loop's time then. */
  stat(key: string, context: StoreContext & { by?: string }): Promise<StoredObject | undefined>;
  /** Makes the bucket when it is missing and `createBucket` is set, and gives up what was uploaded half more than a day ago.
   *  @throws OciError UNAVAILABLE */
  prepare(context: StoreContext): Promise<void>;
  /** For `ttl` ms. @throws OciError UNAVAILABLE: there are no keys to sign with */
  presign(key: string, ttl: number): Promise<SignedUrls>;
}

/** Sockets to S3. What is read from it goes to disk at the disk's pace, so no slow client holds one; but 256 downloads and
 *  their 64 helpers may run at once, and whatever waited for a socket of theirs would take S3 for silent. */
const MAX_SOCKETS = 384;
const AGENT = { keepAlive: true, maxSockets: MAX_SOCKETS, keepAliveMsecs: 10_000 };
const CONNECT_TIMEOUT = 2000;
/** Milliseconds without a byte on a connection: a store may take its time over putting a large object together. */
const SOCKET_TIMEOUT = 60_000;
/** How long a call fails at once after one that got no answer, in ms: pulls do not wait for an S3 that is away. */
const PAUSE = 3000;
/** How many calls in a row may fail before that; one that finds nobody there, or no answer, is enough. */
const PATIENCE = 4;
/** How long a call without a body to send waits for its answer's headers, in ms. */
const ANSWER_LIMIT = 5000;
const WRITE_ATTEMPTS = 3;
/** S3's own limit of a PutObject, in bytes. */
const MAX_PUT = 5 * 2 ** 30;
const MIN_PART = 64 * 2 ** 20;
const MAX_PARTS = 10_000;
const ABANDONED_AFTER = 24 * 3_600_000;

/** Keeps each object under its key in a bucket of any S3-compatible store. Nothing rests on conditional writes. */
export function s3(options: S3Options): S3Store {
  const { bucket, prefix } = options;
  const sockets = createRawSockets(AGENT);
  const agents = { agent: sockets.agent, secureAgent: new HttpsAgent(AGENT) };
  const client = createClient(options, options.endpoint, agents);
  const presigner = options.redirectEndpoint === undefined ? client : createClient(options, options.redirectEndpoint, agents);
  const at = (key: string) => ({ Bucket: bucket, Key: prefix + checkKey(key) });
  let pausedUntil = 0;
  let failures = 0;

  /** Runs a call to S3; absent things are undefined. `limit`: ms until it must have answered.
   *  @throws OciError UNAVAILABLE, origin storage */
  async function attempt<T>(
    doing: string,
    signal: AbortSignal,
    call: (signal: AbortSignal) => Promise<T>,
    limit = ANSWER_LIMIT,
  ): Promise<T | undefined> {
    signal.throwIfAborted();
    const now = Date.now();
    if (now < pausedUntil) {
      throw new OciError('UNAVAILABLE', `S3 did not answer a moment ago; ${doing} is not tried`, {
        origin: 'storage',
        retryAfter: PAUSE / 1000,
      });
    }
    // After a pause one call finds out for all; the rest go on without S3 until it has been answered.
    if (pausedUntil > 0) pausedUntil = now + PAUSE;
    for (let tries = 1; ; tries++) {
      try {
        const answer = await answered(call, signal, limit);
        pausedUntil = failures = 0;
        return answer;
      } catch (error) {
        if (error instanceof SourceError) throw error.cause;
        if (error instanceof OciError) throw error;
        const status = statusOf(error);
        if (status !== undefined && status < 500 && status !== 429) pausedUntil = failures = 0;
        if (status === 404 && (error as Error).name !== 'NoSuchBucket') return undefined;
        // Who gave up before `limit` for want of time has had no answer either.
        const late = (signal.reason as Error | undefined)?.name === 'TimeoutError';
        if (signal.aborted && !late) throw signal.reason;
        if (status === undefined || status >= 500 || status === 429) {
          failures++;
          // A connection that was kept alive may have been closed just now; a busy S3 may have one bad moment.
          if (tries === 1 && limit !== Infinity && !signal.aborted && failures < PATIENCE && Date.now() - now < limit / 2) {
            await delay(100 * Math.random(), undefined, { signal });
            continue;
          }
          if (failures >= PATIENCE || isSilent(error)) pausedUntil = Date.now() + PAUSE;
        }
        signal.throwIfAborted();
        throw describe(error, doing, bucket);
      }
    }
  }

  async function put(key: string, source: StoreSource, signal: AbortSignal): Promise<void> {
    const { size: length } = source;
    await upload({ source, range: undefined, length, signal }, (Body, abortSignal) =>
      client.send(new PutObjectCommand({ ...at(key), Body, ContentLength: length }), { abortSignal }),
    );
  }

  async function putParts(key: string, source: StoreSource, signal: AbortSignal): Promise<void> {
    const { UploadId } = await client.send(new CreateMultipartUploadCommand(at(key)), { abortSignal: signal });
    const partSize = Math.max(MIN_PART, Math.ceil(source.size / MAX_PARTS));
    const Parts: { ETag?: string | undefined; PartNumber: number }[] = [];
    try {
      for (let start = 0; start < source.size; start += partSize) {
        const length = Math.min(partSize, source.size - start);
        const range = { start, end: start + length - 1 };
        const PartNumber = Parts.length + 1;
        const part = { ...at(key), UploadId, PartNumber, ContentLength: length };
        const { ETag } = await upload({ source, range, length, signal }, (Body, abortSignal) =>
          client.send(new UploadPartCommand({ ...part, Body }), { abortSignal }),
        );
        Parts.push({ ETag, PartNumber });
      }
      await client.send(new CompleteMultipartUploadCommand({ ...at(key), UploadId, MultipartUpload: { Parts } }), { abortSignal: signal });
    } catch (error) {
      await client.send(new AbortMultipartUploadCommand({ ...at(key), UploadId })).catch(() => undefined); // `prepare` does it later
      throw error;
    }
  }

  const store: S3Store = {
    stat(key, { signal, within, by }) {
      const ask = async (abortSignal: AbortSignal): Promise<StoredObject> => {
        if (by !== undefined) return headObject(by, { ...agents, signal: abortSignal });
        const found = await client.send(new HeadObjectCommand(at(key)), { abortSignal });
        return { size: found.ContentLength ?? 0, modified: found.LastModified ?? new Date(0) };
      };
      return attempt(`looking up ${key}`, signal, ask, within);
    },

    async read(key, { signal, within, range }) {
      const Range = range === undefined ? undefined : formatRange(range);
      const ask = (abortSignal: AbortSignal) =>
        client.send(new GetObjectCommand({ ...at(key), Range }), { abortSignal }).catch((error: unknown) => {
          throw statusOf(error) === 416 ? unsatisfiable(error) : error;
        });
      const found = await attempt(`reading ${key}`, signal, ask, within).catch(async (error: unknown) => {
        if (!isOciError(error, 'RANGE_INVALID') || error.size !== undefined) throw error;
        // Not every server tells the size with its 416; versitygw does not for an empty object.
        const object = await store.stat(key, { signal });
        if (object !== undefined) throw unsatisfiable(error.cause, object.size);
        return undefined;
      });
      if (found === undefined) return undefined;
      const { ContentRange, ContentLength } = found;
      const body = found.Body as IncomingMessage;
      let part: { range: Required<ByteRange>; size: number } | undefined;
      try {
        part = range === undefined ? undefined : partOf(key, range, { ContentRange, ContentLength });
      } catch (error) {
        body.destroy();
        throw error;
      }
      const failure = (error: unknown) => describe(error, `reading ${key}`, bucket);
      const raw = sockets.takeOver(body, ContentLength ?? 0);
      const source = raw ?? streamSource(body, (error) => error as Error);
      const size = part?.size ?? ContentLength ?? 0;
      const given = mapBody(createBody(source, signal), { onError: failure });
      return { size, modified: found.LastModified ?? new Date(0), range: part?.range, body: given };
    },

    async write(key, source, { signal }) {
      for (let tries = 1; ; tries++) {
        try {
          await attempt(
            `writing ${key}`,
            signal,
            async () => {
              await (source.size > MAX_PUT ? putParts(key, source, signal) : put(key, source, signal));
              return true;
            },
            Infinity,
          );
          return;
        } catch (error) {
          // The SDK cannot send a stream twice, so this does: with a fresh one.
          const again = error instanceof OciError && error.retryAfter !== undefined && Date.now() >= pausedUntil;
          if (!again || tries === WRITE_ATTEMPTS) throw error;
          await delay(backoff(tries, { baseMs: 200, jitter: 'half' }), undefined, { signal });
        }
      }
    },

    async remove(key, { signal }) {
      await attempt(`removing ${key}`, signal, (abortSignal) => client.send(new DeleteObjectCommand(at(key)), { abortSignal }));
    },

    async *list(start, { signal, after }) {
      const Prefix = prefix + checkPrefix(start);
      let StartAfter = after === undefined ? undefined : prefix + after;
      for (;;) {
        const page = await attempt(`listing ${start}`, signal, (abortSignal) =>
          client.send(new ListObjectsV2Command({ Bucket: bucket, Prefix, StartAfter }), { abortSignal }),
        );
        for (const { Key = '', Size = 0, LastModified = new Date(0) } of page?.Contents ?? []) {
          StartAfter = Key;
          yield { key: Key.slice(prefix.length), size: Size, modified: LastModified };
        }
        if (page?.IsTruncated !== true) return;
      }
    },

    async prepare({ signal }) {
      const found = await attempt('looking for the bucket', signal, () =>
        client.send(new HeadBucketCommand({ Bucket: bucket }), { abortSignal: signal }),
      );
      if (found === undefined) {
        if (!options.createBucket) {
          throw new OciError('UNAVAILABLE', `there is no bucket ${bucket}: make it, or set storage.s3.createBucket`, { origin: 'storage' });
        }
        await attempt('making the bucket', signal, () => client.send(new CreateBucketCommand({ Bucket: bucket }), { abortSignal: signal }));
      }
      const half = await attempt('listing uploads', signal, () =>
        client.send(new ListMultipartUploadsCommand({ Bucket: bucket, Prefix: prefix }), { abortSignal: signal }),
      );
      for (const { Key, UploadId, Initiated } of half?.Uploads ?? []) {
        if (Date.now() - (Initiated?.getTime() ?? Date.now()) < ABANDONED_AFTER) continue;
        await attempt('giving up an upload', signal, () =>
          client.send(new AbortMultipartUploadCommand({ Bucket: bucket, Key, UploadId }), { abortSignal: signal }),
        );
      }
    },

    async presign(key, ttl) {
      const expiresIn = Math.max(1, Math.floor(ttl / 1000));
      const end = Date.now() + 1000 * expiresIn;
      try {
        const [given, get, head] = await Promise.all([
          options.credentials === undefined ? client.config.credentials() : undefined, // those of files end when the files change
          getSignedUrl(presigner, new GetObjectCommand(at(key)), { expiresIn }),
          getSignedUrl(client, new HeadObjectCommand(at(key)), { expiresIn }),
        ]);
        return { get, head, until: Math.min(end, given?.expiration?.getTime() ?? end) };
      } catch (error) {
        throw describe(error, `signing for ${key}`, bucket);
      }
    },

    close() {
      client.destroy();
      if (presigner !== client) presigner.destroy();
      return Promise.resolve();
    },
  };
  return store;
}

/** `call`'s answer, within `limit` ms; a body that comes with it is not hurried. Not all of a call heeds its signal: credentials may be on their way
 *  from a service that is silent. */
async function answered<T>(call: (signal: AbortSignal) => Promise<T>, signal: AbortSignal, limit: number): Promise<T> {
  if (limit === Infinity) return call(signal);
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(), limit);
  const either = AbortSignal.any([signal, late.signal]);
  try {
    return await raceAbort(call(either), either);
  } finally {
    clearTimeout(timer);
  }
}

/** Which bytes of an object S3 sends in answer to `range`, and the size of the object. Without this check the bytes of another range would be
 *  hashed as if they were the requested ones.
 *  @throws OciError RANGE_INVALID: the object has no such bytes; UNAVAILABLE: S3 sends another range, or does not say which */
function partOf(
  key: string,
  range: RangeRequest,
  { ContentRange, ContentLength }: { ContentRange: string | undefined; ContentLength: number | undefined },
): { range: Required<ByteRange>; size: number } {
  const sent = parseContentRange(ContentRange);
  const size = ContentRange === undefined ? ContentLength : sent?.size;
  const origin = 'storage';
  if (size === undefined)
    throw new OciError('UNAVAILABLE', `S3 does not say how large ${key} is, or which part of it it sends`, { origin });
  const part = resolveRange(range, size);
  const { start, end } = sent ?? { start: 0, end: size - 1 };
  if (start !== part.start || end !== part.end) {
    throw new OciError('UNAVAILABLE', `S3 was asked for bytes ${part.start}-${part.end} of ${key} and sends ${start}-${end}`, { origin });
  }
  return { range: part, size };
}

/** What S3's 416 means: the size of the object stands in its Content-Range header, or in the error document. */
function unsatisfiable(error: unknown, found?: number): OciError {
  const { $response, ActualObjectSize } = error as { $response?: { headers?: Record<string, string> }; ActualObjectSize?: string };
  const [, told] = /^bytes \*\/(\d{1,15})$/.exec($response?.headers?.['content-range'] ?? '') ?? [];
  const size = found ?? told ?? ActualObjectSize;
  return new OciError('RANGE_INVALID', `the range lies outside the object${size === undefined ? '' : ` of ${size} bytes`}`, {
    cause: error,
    ...(size === undefined ? {} : { size: Number(size) }),
  });
}

/** Nobody listens, or whoever does says nothing. */
function isSilent(error: unknown): boolean {
  const { name, code = '' } = error as NodeJS.ErrnoException;
  return (
    ['TimeoutError', 'AbortError'].includes(name) ||
    ['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH'].includes(code)
  );
}

function createClient(options: S3Options, endpoint: string | undefined, { agent, secureAgent }: Omit<HeadOptions, 'signal'>): S3Client {
  const { region, forcePathStyle, credentials } = options;
  return new S3Client({
    region,
    forcePathStyle,
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(credentials === undefined
      ? {}
      : { credentials: async () => ({ ...(await credentials()), expiration: new Date(Date.now() + 60_000) }) }),
    maxAttempts: 1, // `attempt` and `write` know better when to try again, and for how long
    logger: { trace: nothing, debug: nothing, info: nothing, warn: nothing, error: nothing }, // the console's, if there is none
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    requestHandler: new NodeHttpHandler({
      connectionTimeout: CONNECT_TIMEOUT,
      socketTimeout: SOCKET_TIMEOUT,
      httpAgent: agent,
      httpsAgent: secureAgent,
    }),
  });
}

const nothing = (): void => undefined;

function statusOf(error: unknown): number | undefined {
  return (error as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode;
}

function describe(error: unknown, doing: string, bucket: string): OciError {
  if (error instanceof OciError) return error;
  const status = statusOf(error);
  const { name, message } = error as Error;
  const origin = 'storage';
  if (status === 403)
    return new OciError('UNAVAILABLE', `S3 does not allow ${doing} in ${bucket} (${name}): check the keys and their policy`, {
      cause: error,
      origin,
    });
  if (name === 'NoSuchBucket')
    return new OciError('UNAVAILABLE', `there is no bucket ${bucket}: make it, or set storage.s3.createBucket`, { cause: error, origin });
  if (status !== undefined && status < 500 && status !== 429)
    return new OciError('UNAVAILABLE', `S3 refuses ${doing}: ${status} ${name}`, { cause: error, origin });
  return new OciError('UNAVAILABLE', `S3 fails at ${doing}: ${status ?? ''} ${name} ${message.slice(0, 200)}`, {
    cause: error,
    origin,
    retryAfter: 5,
  });
}
