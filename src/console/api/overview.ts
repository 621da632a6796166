import { z } from 'zod';
import { bytes, count, time, unreachable } from './common.ts';

export const rateLimitSchema = z.strictObject({
  upstream: z.string(),
  remaining: count.describe('Pulls that the upstream still allows.'),
  at: time.describe('When the upstream said so.'),
});

export const totalsSchema = z.strictObject({
  requests: count.describe('Requests for manifests and blobs.'),
  hits: count.describe('Reads that were answered from the cache.'),
  misses: count.describe('Reads for which an upstream was asked.'),
  stale: count.describe('Reads that were answered from the cache although the upstream could not confirm it.'),
  errors: count.describe('Reads that failed.'),
  denied: count.describe('Requests that registry.policy refused.'),
  sentBytes: bytes.describe('Bytes sent to clients.'),
  upstreamBytes: bytes.describe('Bytes received from upstreams.'),
});

export const overviewSchema = z
  .strictObject({
    version: z.string(),
    startedAt: time.describe('Of the replica that answers.'),
    now: time,
    totals: totalsSchema.describe('Since the replicas started, summed up.'),
    hour: totalsSchema.describe('Of the last hour.'),
    hitRate: z
      .number()
      .min(0)
      .max(1)
      .nullable()
      .describe('Hits and stale answers among all reads of the last hour; null: there were none.'),
    savedBytes: bytes.describe('Bytes sent to clients that no upstream had to send, since the replicas started.'),
    runningDownloads: count,
    rateLimits: z.array(rateLimitSchema),
    store: z.strictObject({
      kind: z.enum(['filesystem', 's3']),
      where: z.string().describe('The directory or the bucket.'),
      bytes: bytes.nullable().describe('All blobs; null: they have not been counted yet.'),
      blobs: count.nullable(),
      limit: bytes.nullable().describe('registry.cache.maxSize; null: none.'),
    }),
    localTier: z
      .strictObject({ bytes, maxBytes: bytes, waitingBlobs: count, waitingBytes: bytes })
      .nullable()
      .describe('The tier in front of S3, and the blobs in it that wait for their upload, of the replica that answers; null: no S3.'),
    inventory: z.strictObject({
      state: z.enum(['none', 'running', 'ready', 'failed']).describe('none: nobody has asked for it yet.'),
      takenAt: time.nullable().describe('When the images were last listed.'),
      seconds: z.number().nullable().describe('How long that took.'),
      progress: z.number().min(0).max(1).nullable().describe('Of a listing that runs.'),
      images: count.nullable(),
      problem: z.string().nullable().describe('Why the last listing failed.'),
    }),
    links: z.strictObject({ grafana: z.string().nullable().describe('URL of the dashboard in Grafana: registry.console.grafana.') }),
    unreachable,
  })
  .describe('The state of the registry at a glance.');
export type Overview = z.output<typeof overviewSchema>;
export type Totals = z.output<typeof totalsSchema>;
export type RateLimitReport = z.output<typeof rateLimitSchema>;
