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
  /** A path that is put before every key. */
  prefix: string;
  /** Absent: those of `profile`, or of the SDK's default chain. Asked each time the SDK wants to know: files may rotate. */
  credentials?: (() => Promise<Credentials>) | undefined;
  /** Of the SDK's own configuration files. */
  profile?: string | undefined;
  /** What is assumed with those credentials. */
  role?: Role | undefined;
  /** Of S3 as clients reach it; absent: `endpoint`. */
  redirectEndpoint?: string | undefined;
  /** A PEM file of authorities to trust beside the usual ones. */
  ca?: string | undefined;
  /** Takes any certificate. */
  insecureSkipVerify?: boolean | undefined;
  /** The URL of an HTTP proxy on the way to S3. */
  proxy?: string | undefined;
  serverSideEncryption?: 'AES256' | 'aws:kms' | undefined;
  /** Of the key for aws:kms; absent: the bucket's. */
  kmsKeyId?: string | undefined;
  storageClass?: string | undefined;
  /** A canned ACL for every object. */
  acl?: string | undefined;
  dualStack?: boolean | undefined;
  fips?: boolean | undefined;
  accelerate?: boolean | undefined;
  /** Bytes. What is larger goes in parts of this size; absent: in one request, up to S3's limit of 5 GiB. */
  partSize?: number | undefined;
  /** Added to the SDK's own. */
  userAgent?: string | undefined;
  log?: Log | undefined;
}

/** URLs that anybody may use who has them, as long as they were signed for. */
export interface SignedUrls {
  /** Gives the object, at the endpoint that clients reach. */
  get: string;
  /** Asks for it, at the registry's own endpoint. */
  head: string;
  /** When they end, in ms since the epoch: with the credentials, when these go first. */
  until: number;
}

export interface S3Store extends UploadStore {
  /** `by`: the key's `SignedUrls.head`. The same question, which costs little of the event loop's time then. */
  stat(key: string, context: StoreContext & { by?: string }): Promise<StoredObject | undefined>;
  /** Makes the bucket when it is missing and `createBucket` is set, gives up what was uploaded half more than a day ago, and tells the log what an
   *  operator should know of the bucket. @throws OciError UNAVAILABLE */
  prepare(context: StoreContext): Promise<void>;
  /** For `ttl` ms. @throws OciError UNAVAILABLE: there are no keys to sign with */
  presign(key: string, ttl: number): Promise<SignedUrls>;
}
