import { z } from 'zod';
import { duration, exactUrl, httpUrl, size, text } from './scalars.ts';

const PART_FORM = 'a size from 5MiB to 5GiB';
const partSize = size.refine((bytes) => bytes >= 5 * 2 ** 20 && bytes <= 5 * 2 ** 30, PART_FORM);
/** May contain a user name and password, which Node sends to the proxy. */
const proxyUrl = exactUrl.meta({ title: 'URL', description: 'A URL that starts with `http://` or `https://`.' });

/** Signature Version 4 allows a week at most. With less than 10 s, a client may be too late. */
const signedFor = duration.refine((milliseconds) => milliseconds >= 10_000 && milliseconds <= 7 * 86_400_000, 'a duration from 10s to 7d');

export const s3 = z
  .strictObject({
    bucket: text.describe('Name of the bucket. It must exist, unless createBucket is set.'),
    region: text.prefault('us-east-1').describe('Region that requests are signed for. Most stores other than Amazon accept any.'),
    endpoint: httpUrl.optional().describe('URL of an S3-compatible store. Default: Amazon S3.'),
    forcePathStyle: z
      .boolean()
      .optional()
      .describe(
        'Put the bucket into the path instead of the host name. Default: true with an endpoint, but false for aliyuncs.com, myqcloud.com, myhuaweicloud.com, volces.com and amazonaws.com.',
      ),
    createBucket: z.boolean().prefault(false).describe('Create the bucket at start if it is missing.'),
    prefix: z.string().prefault('').describe('Prefix of every key: with clusters/one, objects are stored under clusters/one/v1/….'),
    accessKeyId: text.optional().describe('Access key. Default: the chain of the AWS SDK (environment, profile, web identity, instance).'),
    accessKeyIdFile: text.optional().describe('A file with that value; read again when it changes.'),
    secretAccessKey: text.optional().describe('Secret key that belongs to accessKeyId.'),
    secretAccessKeyFile: text.optional().describe('A file with that value; read again when it changes.'),
    sessionToken: text.optional().describe('Session token of temporary keys.'),
    sessionTokenFile: text.optional().describe('A file with that value; read again when it changes.'),
    profile: text.optional().describe('Take the keys from this profile of the AWS configuration files.'),
    roleArn: text.optional().describe('Assume this role with those keys.'),
    roleExternalId: text.optional().describe('The external ID that the role requires.'),
    stsEndpoint: httpUrl.optional().describe("URL of the STS service. Default: Amazon's in the region."),
    ca: text.optional().describe('A PEM file of certificate authorities to trust in addition to the usual ones.'),
    insecureSkipVerify: z
      .boolean()
      .prefault(false)
      .describe('Accept any certificate of S3. Anyone on the network path can then read the keys and change images.'),
    proxy: proxyUrl.optional().describe('An HTTP proxy for requests to S3.'),
    serverSideEncryption: z.enum(['AES256', 'aws:kms']).optional().describe('How S3 encrypts objects; bucket policies may require it.'),
    kmsKeyId: text.optional().describe("The key for aws:kms; without it the bucket's default key."),
    storageClass: text.optional().describe('The storage class of objects, for example STANDARD_IA.'),
    acl: text.optional().describe('The canned ACL of objects, for example bucket-owner-full-control.'),
    partSize: partSize
      .optional()
      .describe('Upload larger objects in parts of this size (5MiB to 5GiB). Default: only objects above 5 GiB are uploaded in parts.'),
    dualStack: z.boolean().prefault(false).describe("Use Amazon's endpoints for IPv4 and IPv6."),
    fips: z.boolean().prefault(false).describe("Use Amazon's FIPS 140 endpoints."),
    accelerate: z.boolean().prefault(false).describe('Use S3 Transfer Acceleration, which the bucket must have enabled.'),
    userAgent: text.optional().describe('Added to the User-Agent of requests to S3.'),
    redirect: z
      .union([
        z.enum(['auto', 'off']),
        z.strictObject({
          clients: z
            .enum(['all', 'agents'])
            .prefault('all')
            .describe(
              'all: redirect every client; agents: redirect only agents, which verify the bytes and read from the registry if they cannot reach S3.',
            ),
          endpoint: z
            .preprocess(unlessUnresolved, httpUrl.optional())
            .describe('URL at which clients reach S3. Default: storage.s3.endpoint.'),
          ttl: signedFor.prefault('15m').describe('How long a presigned URL is valid.'),
        }),
      ])
      .optional()
      .describe(
        'Redirect clients (307) to presigned URLs of S3 instead of sending blobs. auto: redirect only agents, to storage.s3.endpoint. off: never redirect. Default: auto, or off if the endpoint has a name that resolves only inside the cluster.',
      ),
  })
  .refine((own) => own.accessKeyId === undefined || own.accessKeyIdFile === undefined, 'one of accessKeyId and accessKeyIdFile')
  .refine(
    (own) => own.secretAccessKey === undefined || own.secretAccessKeyFile === undefined,
    'one of secretAccessKey and secretAccessKeyFile',
  )
  .refine(
    (own) => ((own.accessKeyId ?? own.accessKeyIdFile) === undefined) === ((own.secretAccessKey ?? own.secretAccessKeyFile) === undefined),
    'an access key ID and a secret access key together, or neither',
  )
  .refine((own) => own.sessionToken === undefined || own.sessionTokenFile === undefined, 'one of sessionToken and sessionTokenFile')
  .refine(
    (own) => (own.sessionToken ?? own.sessionTokenFile) === undefined || (own.accessKeyId ?? own.accessKeyIdFile) !== undefined,
    'a session token together with an access key ID',
  )
  .refine((own) => own.profile === undefined || (own.accessKeyId ?? own.accessKeyIdFile) === undefined, 'one of accessKeyId and profile')
  .refine((own) => own.kmsKeyId === undefined || own.serverSideEncryption === 'aws:kms', 'kmsKeyId with serverSideEncryption aws:kms')
  .refine(
    (own) => own.endpoint === undefined || !(own.dualStack || own.fips || own.accelerate),
    'dualStack, fips and accelerate only without an endpoint: they select an endpoint of Amazon S3',
  )
  .transform((own) => ({
    ...own,
    forcePathStyle: own.forcePathStyle ?? defaultPathStyle(own.endpoint),
    redirect: redirectOf(own.redirect ?? (isInCluster(own.endpoint) ? 'off' : 'auto')),
  }));

/** Kubernetes does not expand a variable that it does not know, such as the address of a Service
 *  that was created after this pod. */
function unlessUnresolved(text: unknown): unknown {
  return typeof text === 'string' && text.includes('$(') ? undefined : text;
}

const DEFAULT_SIGNED_FOR_MS = 900_000;

interface S3Redirect {
  clients: 'all' | 'agents';
  endpoint?: string | undefined;
  /** Milliseconds. */
  ttl: number;
}

function redirectOf(own: 'auto' | 'off' | S3Redirect): S3Redirect | undefined {
  if (own === 'off') return undefined;
  return own === 'auto' ? { clients: 'agents', ttl: DEFAULT_SIGNED_FOR_MS } : own;
}

/** Whether the endpoint's name is one of Kubernetes' own, which nodes do not resolve. */
function isInCluster(endpoint: string | undefined): boolean {
  if (endpoint === undefined) return false;
  const { hostname } = new URL(endpoint);
  if (hostname.startsWith('[') || hostname === 'localhost') return false;
  return !hostname.includes('.') || /\.svc(?:\.|$)/.test(hostname) || hostname.endsWith('.cluster.local');
}

const VIRTUAL_HOSTED = ['aliyuncs.com', 'myqcloud.com', 'myhuaweicloud.com', 'volces.com', 'amazonaws.com'];

function defaultPathStyle(endpoint: string | undefined): boolean {
  if (endpoint === undefined) return false;
  const { hostname } = new URL(endpoint);
  return !VIRTUAL_HOSTED.some((domain) => hostname === domain || hostname.endsWith(`.${domain}`));
}

export type S3Config = z.output<typeof s3>;
