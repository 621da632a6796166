import type { S3Options, S3Store } from '../../src/store/s3/options.ts';
import { s3 } from '../../src/store/s3/s3.ts';

/** A store in the bucket `images` of a scripted S3 server. */
export function openS3(server: { url: string }, options: Partial<S3Options> = {}): S3Store {
  return s3({
    bucket: 'images',
    region: 'us-east-1',
    endpoint: server.url,
    forcePathStyle: true,
    createBucket: false,
    prefix: '',
    credentials: () => Promise.resolve({ accessKeyId: 'id', secretAccessKey: 'secret' }),
    ...options,
  });
}
