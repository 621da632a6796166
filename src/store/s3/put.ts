import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  PutObjectCommand,
  UploadPartCommand,
  type S3Client,
} from '@aws-sdk/client-s3';
import { createHash } from 'node:crypto';
import { splitDigest } from '../../oci/digest.ts';
import { parseBlobKey } from '../keys.ts';
import type { StoreSource } from '../store.ts';
import { ForeignAnswer } from './errors.ts';
import type { S3Options } from './options.ts';
import { upload } from './upload.ts';

/** S3's own limit of a PutObject, in bytes. */
export const MAX_PUT = 5 * 2 ** 30;
const MIN_PART = 64 * 2 ** 20;
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

export interface Putter {
  /** Tries once to store an object. @throws SourceError; what the SDK throws */
  put(this: void, put: Put): Promise<void>;
}

/** Stores objects in one request if S3 accepts that, else in parts. */
export function createPutter(client: S3Client, options: S3Options): Putter {
  const { partSize } = options;
  const attributes = attributesOf(options);

  async function putWhole({ key, target, source, signal }: Put): Promise<void> {
    const { size: length } = source;
    const ChecksumSHA256 = checksumOf(key, source);
    await upload({ source, range: undefined, length, signal }, (Body, abortSignal) =>
      client.send(new PutObjectCommand({ ...target, ...attributes, Body, ContentLength: length, ChecksumSHA256 }), { abortSignal }),
    );
  }

  async function putParts({ target, source, signal }: Put): Promise<void> {
    const begun = await client.send(new CreateMultipartUploadCommand({ ...target, ...attributes }), { abortSignal: signal });
    const { UploadId } = begun;
    if (UploadId === undefined || UploadId === '') throw new ForeignAnswer(200, "an answer without an upload ID is not S3's own");
    const size = Math.max(partSize ?? MIN_PART, Math.ceil(source.size / MAX_PARTS));
    const Parts: { ETag?: string | undefined; PartNumber: number }[] = [];
    try {
      for (let start = 0; start < source.size; start += size) {
        const length = Math.min(size, source.size - start);
        const range = { start, end: start + length - 1 };
        const PartNumber = Parts.length + 1;
        const part = { ...target, UploadId, PartNumber, ContentLength: length };
        const { ETag } = await upload({ source, range, length, signal }, (Body, abortSignal) =>
          client.send(new UploadPartCommand({ ...part, Body }), { abortSignal }),
        );
        Parts.push({ ETag, PartNumber });
      }
      const complete = new CompleteMultipartUploadCommand({ ...target, UploadId, MultipartUpload: { Parts } });
      const { ETag } = await client.send(complete, { abortSignal: signal });
      if (ETag === undefined) throw new ForeignAnswer(200, "an answer without an ETag is not S3's own");
    } catch (error) {
      // If the abort fails, `prepare` aborts the upload later.
      await client.send(new AbortMultipartUploadCommand({ ...target, UploadId })).catch(() => undefined);
      throw error;
    }
  }

  return {
    put: (put) => (put.source.size > (partSize ?? MAX_PUT) ? putParts(put) : putWhole(put)),
  };
}

/** Headers of every object, for policies that demand them. */
export function attributesOf({ serverSideEncryption, kmsKeyId, storageClass, acl }: S3Options) {
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
export function checksumOf(key: string, { bytes }: StoreSource): string | undefined {
  const digest = parseBlobKey(key);
  const { algorithm, hex } = digest === undefined ? { algorithm: '', hex: '' } : splitDigest(digest);
  if (algorithm === 'sha256') return Buffer.from(hex, 'hex').toString('base64');
  return bytes === undefined ? undefined : createHash('sha256').update(bytes).digest('base64');
}
