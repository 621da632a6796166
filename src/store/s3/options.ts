import type { Log } from '../../telemetry/log.ts';
import type { StoreContext, StoredObject } from '../store.ts';
import type { UploadStore } from '../upload-store.ts';
import type { Credentials, Role } from './credentials.ts';

export interface S3Options {
  bucket: string;
  region: string;
  endpoint?: string | undefined;
  forcePathStyle: boolean;
  createBucket: boolean;
  /** The prefix of every key, as a path. */
  prefix: string;
  /** Absent: those of `profile`, or of the SDK's default chain. Called each time the SDK needs
   *  them: files may rotate. */
  credentials?: (() => Promise<Credentials>) | undefined;
  /** A profile in the SDK's own configuration files. */
  profile?: string | undefined;
  /** The role to assume with those credentials. */
  role?: Role | undefined;
  /** The endpoint of S3 for clients; absent: `endpoint`. */
  redirectEndpoint?: string | undefined;
  /** A PEM file of authorities to trust in addition to the usual ones. */
  ca?: string | undefined;
  /** Accepts any certificate. */
  insecureSkipVerify?: boolean | undefined;
  /** The URL of an HTTP proxy to S3. */
  proxy?: string | undefined;
  serverSideEncryption?: 'AES256' | 'aws:kms' | undefined;
  /** The ID of the key for aws:kms; absent: the bucket's. */
  kmsKeyId?: string | undefined;
  storageClass?: string | undefined;
  /** A canned ACL for every object. */
  acl?: string | undefined;
  dualStack?: boolean | undefined;
  fips?: boolean | undefined;
  accelerate?: boolean | undefined;
  /** In bytes. Larger objects are uploaded in parts of this size; absent: in one request, up to
   *  S3's limit of 5 GiB. */
  partSize?: number | undefined;
  /** Added to the SDK's own. */
  userAgent?: string | undefined;
  log?: Log | undefined;
}

/** Presigned URLs: anyone who has one may use it until it expires. */
export interface SignedUrls {
  /** GETs the object, at the endpoint for clients. */
  get: string;
  /** HEADs the object, at the registry's own endpoint. */
  head: string;
  /** When they expire, in ms since the epoch; not after the credentials do. */
  until: number;
}

export interface S3Store extends UploadStore {
  /** `by`: the key's `SignedUrls.head`, which costs the event loop little time. */
  stat(key: string, context: StoreContext & { by?: string }): Promise<StoredObject | undefined>;
  /** Creates the bucket if it is missing and `createBucket` is set, aborts multipart uploads that
   *  are more than a day old, and logs warnings about the bucket. @throws
   *  OciError UNAVAILABLE */
  prepare(context: StoreContext): Promise<void>;
  /** Signs URLs for `ttl` ms. @throws OciError UNAVAILABLE: there are no credentials to sign
   *  with */
  presign(key: string, ttl: number): Promise<SignedUrls>;
}
