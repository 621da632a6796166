import { z } from 'zod';
import { bytes, count, time, unreachable } from './common.ts';

export const rateLimitSchema = z.strictObject({
  upstream: z.string(),
  remaining: count.describe('The remaining pulls at the upstream.'),
  limit: count.nullable().describe('The number of pulls that the upstream allows in windowSeconds; null: it does not report it.'),
  windowSeconds: count.nullable().describe('The period of the limit; null: the upstream does not report it.'),
  at: time.describe('When the upstream reported this.'),
});

export const totalsSchema = z.strictObject({
  requests: count.describe('Requests for manifests and blobs.'),
  hits: count.describe('Reads served from the cache.'),
  misses: count.describe('Reads that needed an upstream.'),
  stale: count.describe('Reads served from the cache although the upstream could not confirm the tag.'),
  errors: count.describe('Reads that failed.'),
  denied: count.describe('Requests that registry.policy refused.'),
  sentBytes: bytes.describe('Bytes sent to clients.'),
  upstreamBytes: bytes.describe('Bytes received from upstreams.'),
});

export const overviewSchema = z
  .strictObject({
    version: z.string(),
    startedAt: time.describe('The values of the replica that answers.'),
    now: time,
    totals: totalsSchema.describe('The sums since the replicas started.'),
    hour: totalsSchema.describe('The sums of the last hour.'),
    hitRate: z
      .number()
      .min(0)
      .max(1)
      .nullable()
      .describe('The share of hits and stale answers among all reads of the last hour; null: no reads.'),
    savedBytes: bytes.describe('Bytes served without an upstream, since the replicas started.'),
    runningDownloads: count,
    runningBytes: bytes.describe('Bytes that the running downloads have received from upstreams.'),
    rateLimits: z.array(rateLimitSchema),
    store: z.strictObject({
      kind: z.enum(['filesystem', 's3']),
      where: z.string().describe('The directory or the bucket.'),
      bytes: bytes.nullable().describe('All blobs; null: they have not been counted yet.'),
      blobs: count.nullable(),
      limit: bytes.nullable().describe('registry.cache.maxSize; null: no limit.'),
    }),
    localTier: z
      .strictObject({ bytes, maxBytes: bytes, waitingBlobs: count, waitingBytes: bytes })
      .nullable()
      .describe('The tier in front of S3, and the blobs in it that wait for their upload, of the replica that answers; null: no S3.'),
    inventory: z.strictObject({
      state: z.enum(['none', 'running', 'ready', 'failed']).describe('none: no request so far.'),
      takenAt: time.nullable().describe('When the images were last listed.'),
      seconds: z.number().nullable().describe('The duration of the last listing.'),
      progress: z.number().min(0).max(1).nullable().describe('The progress of a running listing.'),
      images: count.nullable(),
      problem: z.string().nullable().describe('Why the last listing failed.'),
    }),
    links: z.strictObject({ grafana: z.string().nullable().describe('URL of the dashboard in Grafana: registry.console.grafana.') }),
    unreachable,
  })
  .describe('An overview of the state of the registry.');
export type Overview = z.output<typeof overviewSchema>;
export type Totals = z.output<typeof totalsSchema>;
export type RateLimitReport = z.output<typeof rateLimitSchema>;
