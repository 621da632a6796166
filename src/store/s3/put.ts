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
import { createHash } from 'node:crypto';
import { splitDigest } from '../../oci/digest.ts';
import type { ByteRange } from '../../oci/range.ts';
import { parseBlobKey } from '../keys.ts';
import type { StoreSource } from '../store.ts';
import { codeOf, ForeignAnswer, UploadEnded } from './errors.ts';
import type { S3Options } from './options.ts';
import { upload } from './upload.ts';

/** S3's own limit of a PutObject, in bytes. */
export const MAX_PUT = 5 * 2 ** 30;
/** The minimum size of a part of a multipart upload, except for the last (Amazon S3, "Multipart
 *  upload limits"); bytes. */
export const MIN_PART_SIZE = 5 * 2 ** 20;
/** The usual size of a part; bytes. */
export const PART_SIZE = 64 * 2 ** 20;
const MAX_PARTS = 10_000;

export interface Target {
  Bucket: string;
  /** In the bucket, with the prefix. */
  Key: string;
}

export interface Put {
  /** In the store. */
  key: string;
  target: Target;
  source: StoreSource;
  signal: AbortSignal;
}

/** Stores objects: one try, in one request or in parts. Every method @throws SourceError;
 *  ForeignAnswer; UploadEnded; what the SDK throws. */
export interface Putter {
  /** Stores an object in one request if S3 accepts that, else in parts. */
  put(this: void, put: Put): Promise<void>;
  /** Stores an object in one request. */
  whole(this: void, put: Put): Promise<void>;
  /** Creates an object from the parts that `send` adds, or none. */
  inParts(this: void, target: Target, signal: AbortSignal, send: (parts: Parts) => Promise<void>): Promise<void>;
  /** Creates an object from another one of at most MAX_PUT bytes. */
  copy(this: void, target: Target, source: CopySource, signal: AbortSignal): Promise<void>;
}

/** Where an object is copied from: `bucket/key`, URL-encoded. */
export type CopySource = string;

/** The parts of an object, in the order of the calls, which may overlap. All but the last have at
 *  least MIN_PART_SIZE bytes. */
export interface Parts {
  /** Sends a source, or a range of it. */
  add(source: StoreSource, range?: Required<ByteRange>): Promise<void>;
  /** Copies a range of another object, of at most MAX_PUT bytes. */
  addCopy(source: CopySource, range: Required<ByteRange>): Promise<void>;
}

export function createPutter(client: S3Client, options: S3Options): Putter {
  const { partSize } = options;
  const attributes = attributesOf(options);
  const puts = { client, attributes };

  return {
    whole: (put) => putWhole(puts, put),
    inParts: (target, signal, send) => putInParts(puts, { target, signal }, send),
    async put(put) {
      const { target, source, signal } = put;
      if (source.size <= (partSize ?? MAX_PUT)) return putWhole(puts, put);
      const size = Math.max(partSize ?? PART_SIZE, Math.ceil(source.size / MAX_PARTS));
      await putInParts(puts, { target, signal }, async (parts) => {
        for (let start = 0; start < source.size; start += size) {
          await parts.add(source, { start, end: Math.min(start + size, source.size) - 1 });
        }
      });
    },
    async copy(target, source, signal) {
      await client.send(new CopyObjectCommand({ ...target, ...attributes, CopySource: source }), { abortSignal: signal });
    },
  };
}

interface Puts {
  client: S3Client;
  attributes: ReturnType<typeof attributesOf>;
}

async function putWhole({ client, attributes }: Puts, { key, target, source, signal }: Put): Promise<void> {
  const { size: length } = source;
  const ChecksumSHA256 = checksumOf(key, source);
  await upload({ source, range: undefined, length, signal }, (Body, abortSignal) =>
    client.send(new PutObjectCommand({ ...target, ...attributes, Body, ContentLength: length, ChecksumSHA256 }), { abortSignal }),
  );
}

async function putInParts(
  { client, attributes }: Puts,
  { target, signal }: Pick<Put, 'target' | 'signal'>,
  send: (parts: Parts) => Promise<void>,
): Promise<void> {
  const { UploadId } = await client.send(new CreateMultipartUploadCommand({ ...target, ...attributes }), { abortSignal: signal });
  if (UploadId === undefined || UploadId === '') throw new ForeignAnswer(200, "an answer without an upload ID is not S3's own");
  const to = { ...target, UploadId };
  try {
    const sent: CompletedPart[] = [];
    await send(createParts(client, to, { sent, signal }));
    const complete = new CompleteMultipartUploadCommand({ ...to, MultipartUpload: { Parts: sent.toSorted(byNumber) } });
    const { ETag } = await client.send(complete, { abortSignal: signal });
    if (ETag === undefined) throw new ForeignAnswer(200, "an answer without an ETag is not S3's own");
  } catch (error) {
    if (codeOf(error) === 'NoSuchUpload') throw new UploadEnded('S3 has ended the upload', { cause: error });
    // If the abort fails, `prepare` aborts the upload later.
    await client.send(new AbortMultipartUploadCommand(to)).catch(() => undefined);
    throw error;
  }
}

function byNumber(one: CompletedPart, other: CompletedPart): number {
  return (one.PartNumber ?? 0) - (other.PartNumber ?? 0);
}

function createParts(
  client: S3Client,
  to: Target & { UploadId: string },
  { sent, signal }: { sent: CompletedPart[]; signal: AbortSignal },
): Parts {
  let begun = 0;
  return {
    async add(source, range) {
      const length = range === undefined ? source.size : range.end - range.start + 1;
      const PartNumber = ++begun;
      const { ETag } = await upload({ source, range, length, signal }, (Body, abortSignal) =>
        client.send(new UploadPartCommand({ ...to, PartNumber, Body, ContentLength: length }), { abortSignal }),
      );
      sent.push({ ETag, PartNumber });
    },
    async addCopy(source, { start, end }) {
      const PartNumber = ++begun;
      const command = new UploadPartCopyCommand({ ...to, PartNumber, CopySource: source, CopySourceRange: `bytes=${start}-${end}` });
      const { CopyPartResult } = await client.send(command, { abortSignal: signal });
      sent.push({ ETag: CopyPartResult?.ETag, PartNumber });
    },
  };
}

/** Headers of every object, for policies that demand them. */
function attributesOf({ serverSideEncryption, kmsKeyId, storageClass, acl }: S3Options) {
  return {
    ...(serverSideEncryption === undefined ? {} : { ServerSideEncryption: serverSideEncryption }),
    ...(kmsKeyId === undefined ? {} : { SSEKMSKeyId: kmsKeyId }),
    ...(storageClass === undefined ? {} : { StorageClass: storageClass as never }),
    ...(acl === undefined ? {} : { ACL: acl as never }),
  };
}

/** The x-amz-checksum-sha256 of the body, by which S3 rejects a truncated one: for a blob from its
 *  name, for a record from its bytes in memory. Undefined: computing it would require reading the
 *  whole source. */
function checksumOf(key: string, { bytes }: StoreSource): string | undefined {
  const digest = parseBlobKey(key);
  const { algorithm, hex } = digest === undefined ? { algorithm: '', hex: '' } : splitDigest(digest);
  if (algorithm === 'sha256') return Buffer.from(hex, 'hex').toString('base64');
  return bytes === undefined ? undefined : createHash('sha256').update(bytes).digest('base64');
}
