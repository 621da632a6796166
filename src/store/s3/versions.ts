import { DeleteObjectCommand, ListObjectVersionsCommand, type S3Client } from '@aws-sdk/client-s3';
import type { Availability } from './availability.ts';
import type { Target } from './put.ts';
import type { S3Options } from './options.ts';

/** Removes an object, and in a versioned bucket its versions too if the credentials' policy allows
 *  it: a merely hidden object takes up as much space as before. Needs s3:ListBucketVersions and
 *  s3:DeleteObjectVersion. */
export function createRemover(client: S3Client, attempt: Availability['attempt'], { log, bucket }: S3Options) {
  let refused = false;

  async function removeVersions({ Bucket, Key }: Target, signal: AbortSignal): Promise<void> {
    const page = await client.send(new ListObjectVersionsCommand({ Bucket, Prefix: Key, MaxKeys: 1000 }), { abortSignal: signal });
    const { Versions = [], DeleteMarkers = [] } = page;
    // A version that is current now was written in the meantime: it stays.
    const old = [...Versions.filter(({ IsLatest }) => IsLatest !== true), ...DeleteMarkers].filter((one) => one.Key === Key);
    for (const { VersionId } of old) {
      await client.send(new DeleteObjectCommand({ Bucket, Key, VersionId }), { abortSignal: signal });
    }
  }

  return async function remove(doing: string, target: Target, signal: AbortSignal): Promise<void> {
    const gone = await attempt({ doing, kind: 'write', signal, mayBeAbsent: true }, (abortSignal) =>
      client.send(new DeleteObjectCommand(target), { abortSignal }),
    );
    const isVersioned = gone?.DeleteMarker === true;
    if (!isVersioned || refused) return;
    try {
      await attempt({ doing: `${doing} with its versions`, kind: 'write', signal, mayBeAbsent: true }, (abortSignal) =>
        removeVersions(target, abortSignal),
      );
    } catch (error) {
      signal.throwIfAborted();
      refused = true;
      log?.warn(
        { event: 's3-versions-kept', bucket, error },
        'removed objects keep using space: the bucket keeps their versions, which cannot be removed',
      );
    }
  };
}
