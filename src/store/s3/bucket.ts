import {
  AbortMultipartUploadCommand,
  CreateBucketCommand,
  GetBucketVersioningCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  type S3Client,
} from '@aws-sdk/client-s3';
import { isOciError } from '../../oci/error.ts';
import { BLOBS } from '../keys.ts';
import type { Availability } from './availability.ts';
import { codeOf, statusOf } from './errors.ts';
import type { S3Options } from './options.ts';

/** Some stores create pools or volumes for a new bucket. */
const MAKE_TIMEOUT_MS = 30_000;
const ABANDONED_AFTER_MS = 24 * 3_600_000;

export interface BucketOptions {
  client: S3Client;
  attempt: Availability['attempt'];
  options: S3Options;
  prefix: (signal: AbortSignal) => Promise<string>;
}

export interface Bucket {
  /** @throws OciError UNAVAILABLE: the bucket cannot be used */
  prepare(this: void, signal: AbortSignal): Promise<void>;
}

/** Prepares a bucket before its first use, and logs its state. */
export function createBucket(context: BucketOptions): Bucket {
  const { client, attempt, options } = context;
  const { bucket, createBucket, log } = options;
  /** Messages that were logged already: `prepare` is repeated while S3 is down. */
  const logged = new Set<string>();

  /** @returns undefined if S3 refuses the call, which is logged once */
  async function unlessRefused<T>(what: string, message: string, call: () => Promise<T | undefined>): Promise<T | undefined> {
    try {
      return await call();
    } catch (error) {
      const refused = isOciError(error, 'UNAVAILABLE') && error.retryAfter === undefined;
      if (!refused) throw error;
      if (!logged.has(what)) log?.info({ event: what, bucket, error }, message);
      logged.add(what);
      return undefined;
    }
  }

  async function warnOfVersions(signal: AbortSignal): Promise<void> {
    const found = await attempt({ doing: 'asking for the versioning of the bucket', kind: 'read', signal }, (abortSignal) =>
      client.send(new GetBucketVersioningCommand({ Bucket: bucket }), { abortSignal }),
    );
    if (found?.Status !== 'Enabled' || logged.has('s3-bucket-versioned')) return;
    logged.add('s3-bucket-versioned');
    log?.warn(
      { event: 's3-bucket-versioned', bucket },
      'the bucket keeps old versions of objects: overwritten objects keep using space; add a lifecycle rule that expires noncurrent versions',
    );
  }

  return {
    async prepare(signal) {
      try {
        await look(context, signal);
      } catch (error) {
        if (!createBucket || codeOf((error as Error).cause) !== 'NoSuchBucket') throw error;
        await make(context, signal);
      }
      await unlessRefused('s3-uploads-not-listed', 'cannot list unfinished uploads; a lifecycle rule should remove those', () =>
        giveUpUploads(context, signal),
      );
      await unlessRefused('s3-versioning-unknown', 'cannot ask whether the bucket keeps old versions of objects', () =>
        warnOfVersions(signal),
      );
    },
  };
}

/** Lists one page: unlike HeadBucket, a refusal has an error message. */
async function look({ client, attempt, options: { bucket }, prefix }: BucketOptions, signal: AbortSignal): Promise<void> {
  const Prefix = `${await prefix(signal)}${BLOBS}`;
  await attempt({ doing: 'checking the bucket', kind: 'read', signal }, (abortSignal) =>
    client.send(new ListObjectsV2Command({ Bucket: bucket, Prefix, MaxKeys: 1 }), { abortSignal }),
  );
}

/** Replicas that start together all create the bucket: one succeeds, the others find that it
 *  exists. */
async function make(context: BucketOptions, signal: AbortSignal): Promise<void> {
  const { client, attempt, options } = context;
  try {
    await attempt({ doing: 'making the bucket', kind: 'write', signal, limit: MAKE_TIMEOUT_MS }, (abortSignal) =>
      client.send(new CreateBucketCommand({ Bucket: options.bucket }), { abortSignal }),
    );
  } catch (error) {
    if (statusOf((error as Error).cause) !== 409) throw error;
    await look(context, signal);
    return;
  }
  await look(context, signal); // whatever the answer, the bucket must exist now
}

async function giveUpUploads({ client, attempt, options: { bucket }, prefix }: BucketOptions, signal: AbortSignal): Promise<void> {
  const Prefix = await prefix(signal);
  let marker: { KeyMarker?: string; UploadIdMarker?: string } = {};
  for (;;) {
    const page = await attempt({ doing: 'listing uploads', kind: 'read', signal }, (abortSignal) =>
      client.send(new ListMultipartUploadsCommand({ Bucket: bucket, Prefix, ...marker }), { abortSignal }),
    );
    for (const { Key, UploadId, Initiated } of page?.Uploads ?? []) {
      if (Date.now() - (Initiated?.getTime() ?? Date.now()) < ABANDONED_AFTER_MS) continue;
      await attempt({ doing: 'aborting an upload', kind: 'write', signal, mayBeAbsent: true }, (abortSignal) =>
        client.send(new AbortMultipartUploadCommand({ Bucket: bucket, Key, UploadId }), { abortSignal }).catch((error: unknown) => {
          if (codeOf(error) !== 'NoSuchUpload') throw error;
        }),
      );
    }
    const { IsTruncated, NextKeyMarker: KeyMarker, NextUploadIdMarker: UploadIdMarker = '' } = page ?? {};
    if (IsTruncated !== true || KeyMarker === undefined || KeyMarker === marker.KeyMarker) return;
    marker = { KeyMarker, UploadIdMarker };
  }
}
