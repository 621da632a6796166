import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CopyObjectCommand,
  CreateMultipartUploadCommand,
  PutObjectCommand,
  UploadPartCommand,
  UploadPartCopyCommand,
  type CompletedPart,
  type S3Client,
} from '@aws-sdk/client-s3';
import { createSemaphore } from '../../async/semaphore.ts';
import { OciError } from '../../oci/error.ts';
import { bytesSource, type Store, type StoreContext, type StoreSource } from '../store.ts';
import type { UploadPart, UploadStore } from '../upload-store.ts';
import type { Availability } from './availability.ts';
import { codeOf, ForeignAnswer, statusOf } from './errors.ts';
import type { S3Options } from './options.ts';
import { attributesOf, checksumOf, MAX_PUT, type Target } from './put.ts';
import { upload } from './upload.ts';

/** The minimum size of a part of a multipart upload, except for the last (Amazon S3, "Multipart
 *  upload limits"); bytes. */
export const MIN_PART_SIZE = 5 * 2 ** 20;
/** Parts of a blob of known size; bytes. */
const PART_SIZE = 64 * 2 ** 20;
/** Parts of one size in a blob of unknown size, whose parts grow: 10,000 of them have to hold the largest blob. */
const PARTS_OF_ONE_SIZE = 2000;
/** Streams of unknown size that hold a part in memory at once; more wait. */
const MAX_BUFFERED_STREAMS = 12;

export interface StreamsOptions {
  client: S3Client;
  attempt: Availability['attempt'];
  /** The location of a key. */
  target(this: void, key: string, signal: AbortSignal): Promise<Target>;
  read: Store['read'];
  options: S3Options;
}

/** Uploads streams to S3, and joins objects there. */
export function createStreams({ client, attempt, target, read, options }: StreamsOptions): Pick<UploadStore, 'writeStream' | 'compose'> {
  const attributes = attributesOf(options);
  const buffered = createSemaphore(MAX_BUFFERED_STREAMS);

  async function put(key: string, at: Target, { source, signal }: { source: StoreSource; signal: AbortSignal }): Promise<void> {
    const { size: length } = source;
    const ChecksumSHA256 = checksumOf(key, source);
    await upload({ source, range: undefined, length, signal }, (Body, abortSignal) =>
      client.send(new PutObjectCommand({ ...at, ...attributes, Body, ContentLength: length, ChecksumSHA256 }), { abortSignal }),
    );
  }

  /** Creates an object from the parts that `send` uploads, or none. */
  async function multipart(
    at: Target,
    signal: AbortSignal,
    send: (upload: Target & { UploadId: string }) => Promise<CompletedPart[]>,
  ): Promise<void> {
    const { UploadId } = await client.send(new CreateMultipartUploadCommand({ ...at, ...attributes }), { abortSignal: signal });
    if (UploadId === undefined || UploadId === '') throw new ForeignAnswer(200, "an answer without an upload ID is not S3's own");
    try {
      const Parts = await send({ ...at, UploadId });
      const complete = new CompleteMultipartUploadCommand({ ...at, UploadId, MultipartUpload: { Parts } });
      const { ETag } = await client.send(complete, { abortSignal: signal });
      if (ETag === undefined) throw new ForeignAnswer(200, "an answer without an ETag is not S3's own");
    } catch (error) {
      // If the abort fails, `prepare` aborts the upload later.
      await client.send(new AbortMultipartUploadCommand({ ...at, UploadId })).catch(() => undefined);
      throw error;
    }
  }

  async function sendPart(
    to: Target & { UploadId: string },
    { PartNumber, source, signal }: { PartNumber: number; source: StoreSource; signal: AbortSignal },
  ): Promise<CompletedPart> {
    const { size: length } = source;
    const { ETag } = await upload({ source, range: undefined, length, signal }, (Body, abortSignal) =>
      client.send(new UploadPartCommand({ ...to, PartNumber, Body, ContentLength: length }), { abortSignal }),
    );
    return { ETag, PartNumber };
  }

  /** A stream of known size: nothing of it stays in memory. */
  async function writeKnown(
    key: string,
    body: AsyncIterable<Uint8Array>,
    { size, signal }: { size: number; signal: AbortSignal },
  ): Promise<void> {
    const at = await target(key, signal);
    if (size <= MAX_PUT) return put(key, at, { source: { size, open: () => Promise.resolve(body) }, signal });
    const take = createSplitter(body);
    await multipart(at, signal, async (to) => {
      const parts: CompletedPart[] = [];
      for (let start = 0; start < size; start += PART_SIZE) {
        const length = Math.min(PART_SIZE, size - start);
        const source = { size: length, open: () => Promise.resolve(take(length)) };
        parts.push(await sendPart(to, { PartNumber: parts.length + 1, source, signal }));
      }
      await take.requireEnd();
      return parts;
    });
  }

  /** A stream of unknown size: one part of it at a time is in memory. */
  async function writeUnknown(key: string, body: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<number> {
    const at = await target(key, signal);
    const pieces = inPieces(body);
    const first = await pieces.next();
    const head = first.value ?? Buffer.alloc(0);
    const second = first.done === true ? first : await pieces.next();
    if (second.done === true) {
      await put(key, at, { source: bytesSource(head), signal });
      return head.length;
    }
    let size = 0;
    await multipart(at, signal, async (to) => {
      const parts: CompletedPart[] = [];
      const add = async (bytes: Uint8Array): Promise<void> => {
        parts.push(await sendPart(to, { PartNumber: parts.length + 1, source: bytesSource(bytes), signal }));
        size += bytes.length;
      };
      await add(head);
      await add(second.value);
      for (let piece = await pieces.next(); piece.done !== true; piece = await pieces.next()) await add(piece.value);
      return parts;
    });
    return size;
  }

  async function copy(parts: readonly UploadPart[], at: Target, signal: AbortSignal): Promise<void> {
    const sources = await Promise.all(parts.map(async ({ key, size }) => ({ CopySource: copySource(await target(key, signal)), size })));
    const [only] = sources;
    if (sources.length === 1 && only !== undefined && only.size <= MAX_PUT) {
      await client.send(new CopyObjectCommand({ ...at, ...attributes, CopySource: only.CopySource }), { abortSignal: signal });
      return;
    }
    await multipart(at, signal, async (to) => {
      const done: CompletedPart[] = [];
      for (const { CopySource, size } of sources) {
        for (let start = 0; start < size; start += MAX_PUT) {
          const PartNumber = done.length + 1;
          const CopySourceRange = `bytes=${start}-${Math.min(start + MAX_PUT, size) - 1}`;
          const command = new UploadPartCopyCommand({ ...to, PartNumber, CopySource, CopySourceRange });
          const { CopyPartResult } = await client.send(command, { abortSignal: signal });
          done.push({ ETag: CopyPartResult?.ETag, PartNumber });
        }
      }
      return done;
    });
  }

  async function* readParts(parts: readonly UploadPart[], signal: AbortSignal): AsyncGenerator<Uint8Array> {
    for (const { key } of parts) {
      const found = await read(key, { signal });
      if (found === undefined) throw new OciError('UNAVAILABLE', `${key} is missing in the storage`, { origin: 'storage' });
      yield* found.body;
    }
  }

  async function writeStream(
    key: string,
    body: AsyncIterable<Uint8Array>,
    { size, signal }: StoreContext & { size?: number },
  ): Promise<number> {
    const call = { doing: `writing ${key}`, kind: 'write', signal, limit: Infinity } as const;
    if (size !== undefined) {
      await attemptOnce(call, () => writeKnown(key, body, { size, signal }));
      return size;
    }
    const written = await buffered.run(() => attemptOnce(call, () => writeUnknown(key, body, signal)), signal);
    return written;
  }

  /** A stream cannot be sent again once S3 has received a part of it. */
  async function attemptOnce<T>(call: Parameters<Availability['attempt']>[0], work: () => Promise<T>): Promise<T> {
    let failure: { error: unknown } | undefined;
    const result = await attempt(call, async () => {
      if (failure !== undefined) throw failure.error;
      try {
        return { value: await work() };
      } catch (error) {
        failure = { error };
        throw error;
      }
    });
    if (result === undefined) throw new OciError('UNAVAILABLE', `S3 did not keep what was sent for ${call.doing}`, { origin: 'storage' });
    return result.value;
  }

  return {
    writeStream,

    async compose(parts, key, { signal }) {
      const size = parts.reduce((sum, part) => sum + part.size, 0);
      const isCopyable = size > 0 && parts.slice(0, -1).every((part) => part.size >= MIN_PART_SIZE);
      if (isCopyable) {
        try {
          await attempt({ doing: `copying to ${key}`, kind: 'write', signal, limit: Infinity }, async () =>
            copy(parts, await target(key, signal), signal).then(() => true),
          );
          return;
        } catch (error) {
          if (!isUnsupported(error)) throw error;
        }
      }
      await writeStream(key, readParts(parts, signal), { size, signal });
    },
  };
}

/** Not every S3 server supports copies on the server. */
function isUnsupported(error: unknown): boolean {
  const cause = error instanceof OciError ? error.cause : error;
  return statusOf(cause) === 501 || ['NotImplemented', 'MethodNotAllowed', 'InvalidRequest'].includes(codeOf(cause) ?? '');
}

function copySource({ Bucket, Key }: Target): string {
  return [Bucket, ...Key.split('/')].map(encodeURIComponent).join('/');
}

/** Splits a body into pieces of exact lengths. */
function createSplitter(body: AsyncIterable<Uint8Array>) {
  const chunks = body[Symbol.asyncIterator]();
  let rest: Uint8Array = Buffer.alloc(0);
  async function* take(length: number): AsyncGenerator<Uint8Array> {
    for (let left = length; left > 0;) {
      if (rest.length === 0) {
        const next = await chunks.next();
        if (next.done === true) return; // `upload` notices that bytes are missing
        rest = next.value;
      }
      const piece = rest.subarray(0, left);
      rest = rest.subarray(piece.length);
      left -= piece.length;
      yield piece;
    }
  }
  return Object.assign(take, {
    /** Lets the body check its bytes at the end. @throws what the body throws; OciError
     *  SIZE_INVALID */
    async requireEnd(): Promise<void> {
      if (rest.length > 0 || (await chunks.next()).done !== true)
        throw new OciError('SIZE_INVALID', 'the body has more bytes than announced');
    },
  });
}

/** Collects a body into parts of at least the size that S3 requires. */
async function* inPieces(body: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer, undefined> {
  let count = 0;
  let buffer = Buffer.allocUnsafe(MIN_PART_SIZE);
  let used = 0;
  for await (let chunk of body) {
    while (chunk.length > 0) {
      if (used === buffer.length) {
        yield buffer;
        count++;
        used = 0;
        buffer = Buffer.allocUnsafe(MIN_PART_SIZE * 2 ** Math.floor(count / PARTS_OF_ONE_SIZE));
      }
      const piece = chunk.subarray(0, buffer.length - used);
      buffer.set(piece, used);
      used += piece.length;
      chunk = chunk.subarray(piece.length);
    }
  }
  if (used > 0) yield buffer.subarray(0, used);
  return undefined;
}
