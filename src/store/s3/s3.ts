import { GetObjectCommand, HeadObjectCommand, ListObjectsV2Command, type S3Client } from '@aws-sdk/client-s3';
import { getSignedUrl } from '@aws-sdk/s3-request-presigner';
import { readAll } from '../../io/body.ts';
import type { OciError } from '../../oci/error.ts';
import type { Store } from '../store.ts';
import { inOrder } from '../upload-store.ts';
import { checkKey, checkPrefix, isKey, V1 } from '../keys.ts';
import { watchAnswers } from './answers.ts';
import { createAvailability, type Availability } from './availability.ts';
import { createBucket } from './bucket.ts';
import { createClient, createConnections } from './client.ts';
import { createCompose } from './compose.ts';
import { createCorrections } from './corrections.ts';
import { codeOf, describe } from './errors.ts';
import { listObjects } from './listing.ts';
import type { S3Options, S3Store } from './options.ts';
import { createPrefix } from './prefix.ts';
import { createPutter, MIN_PART_SIZE } from './put.ts';
import { createRead } from './read.ts';
import { createStat, type S3Access } from './stat.ts';
import { createBodyWriter, createStreamWriter } from './streams.ts';
import { createRemover } from './versions.ts';

/** Keeps each object under its key in a bucket of any S3-compatible store. Does not need
 *  conditional writes. */
export function s3(options: S3Options): S3Store {
  const { bucket, endpoint, redirectEndpoint } = options;
  const connections = createConnections(options);
  const corrections = createCorrections(options);
  const { region } = corrections;
  const client = createClient(options, { endpoint, region, connections });
  const presigner = redirectEndpoint === undefined ? client : createClient(options, { endpoint: redirectEndpoint, region, connections });
  corrections.apply(client);
  watchAnswers(client, corrections);
  const explain = (error: unknown, doing: string): OciError => describe(error, doing, bucket);
  const { attempt } = createAvailability({ describe: explain, corrected: corrections.corrected });
  const prefix = createPrefix(options.prefix, (given, signal) => isPrefixUsed({ client, attempt, bucket }, given, signal));
  const target: S3Access['target'] = async (key, signal) => {
    const checked = checkKey(key);
    signal.throwIfAborted();
    return { Bucket: bucket, Key: (await prefix(signal)) + checked };
  };
  const access: S3Access = { client, connections, corrections, attempt, target };
  const stat = createStat(access);
  const read = createRead({ ...access, stat, explain });
  const putter = createPutter(client, options);
  const writeStream = createStreamWriter({ putter, attempt, target });
  const remove = createRemover(client, attempt, options);
  const write: Store['write'] = async (key, source, { signal }) => {
    const at = await target(key, signal);
    await attempt({ doing: `writing ${key}`, kind: 'write', signal, limit: Infinity }, () =>
      putter.put({ key, target: at, source, signal }),
    );
  };
  const compose = createCompose({
    putter,
    attempt,
    target,
    read,
    writeBody: createBodyWriter({ putter, attempt, target, borrowed: true }),
  });
  const preparation = createBucket({ client, attempt, options, prefix });

  return {
    stat,
    read,
    writeStream,
    compose,
    minPartSize: MIN_PART_SIZE,

    async readSmall(key, maxBytes, context) {
      const found = await read(key, context);
      return found === undefined ? undefined : readAll(found.body, maxBytes);
    },

    write,
    writeInOrder: inOrder({ write, compose }),

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
    presign: createPresign({ ...access, presigner, options, explain }),

    close() {
      client.destroy();
      if (presigner !== client) presigner.destroy();
      return Promise.resolve();
    },
  };
}

async function isPrefixUsed(
  { client, attempt, bucket }: { client: S3Client; attempt: Availability['attempt']; bucket: string },
  prefix: string,
  signal: AbortSignal,
): Promise<boolean> {
  const page = await attempt({ doing: 'looking for the prefix', kind: 'read', signal }, (abortSignal) =>
    client.send(new ListObjectsV2Command({ Bucket: bucket, Prefix: `${prefix}${V1}`, MaxKeys: 1 }), { abortSignal }),
  ).catch((error: unknown) => {
    if (codeOf((error as Error).cause) !== 'NoSuchBucket') throw error;
    return undefined;
  });
  return (page?.Contents ?? []).length > 0;
}

interface PresignOptions extends S3Access {
  /** Signs the URLs for clients. */
  presigner: S3Client;
  options: S3Options;
  /** Translates an error for the operator. */
  explain(this: void, error: unknown, doing: string): OciError;
}

function createPresign({ client, presigner, corrections, target, options, explain }: PresignOptions): S3Store['presign'] {
  return async (key, ttl) => {
    const at = await target(key, new AbortController().signal);
    const expiresIn = Math.max(1, Math.floor(ttl / 1000));
    const end = Date.now() + 1000 * expiresIn;
    const signing = { expiresIn, signingDate: corrections.now() };
    try {
      const [given, get, head] = await Promise.all([
        options.credentials === undefined ? client.config.credentials() : undefined, // credentials from files are valid until the files change
        getSignedUrl(presigner, new GetObjectCommand(at), signing),
        getSignedUrl(client, new HeadObjectCommand(at), signing),
      ]);
      return { get, head, until: Math.min(end, given?.expiration?.getTime() ?? end) };
    } catch (error) {
      throw explain(error, `signing for ${key}`);
    }
  };
}
