import { setTimeout as sleep } from 'node:timers/promises';
import type { Digest } from '../src/oci/digest.ts';
import { blobKey } from '../src/store/keys.ts';
import type { S3Store } from '../src/store/s3/options.ts';
import { s3 } from '../src/store/s3/s3.ts';
import type { Versitygw } from '../test/support/versitygw.ts';

const HOUR_MS = 3_600_000;

const key = (digest: string): string => blobKey(digest as Digest);

export function openS3(stack: AsyncDisposableStack, gateway: Versitygw): S3Store {
  const { accessKeyId, secretAccessKey, ...rest } = gateway;
  const credentials = () => Promise.resolve({ accessKeyId, secretAccessKey });
  const store = s3({ ...rest, credentials, forcePathStyle: true, createBucket: false, prefix: '' });
  stack.defer(() => store.close());
  return store;
}

export async function untilStored(store: S3Store, digest: string): Promise<void> {
  for (let left = 600; (await store.stat(key(digest), { signal: AbortSignal.timeout(5000) })) === undefined; left--) {
    if (left === 0) throw new Error(`${digest} does not reach S3`);
    await sleep(50);
  }
}

/** By digest: where clients read the blob directly from S3. */
export async function signedUrls(store: S3Store, digests: readonly string[]): Promise<Map<string, string>> {
  return new Map(await Promise.all(digests.map(async (digest) => [digest, (await store.presign(key(digest), HOUR_MS)).get] as const)));
}
