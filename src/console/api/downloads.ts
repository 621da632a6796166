import { z } from 'zod';
import { bytes, count, digest, repository, time, unreachable } from './common.ts';

export const downloadSchema = z.strictObject({
  digest,
  repository,
  upstream: z.string(),
  source: z.enum(['storage', 'replica', 'upstream']).describe('Where its bytes come from now.'),
  receivedBytes: bytes,
  size: bytes.nullable().describe('Of the whole blob.'),
  bytesPerSecond: bytes.describe('Over the last seconds.'),
  startedAt: time,
  readers: count.describe('Clients that follow it.'),
  replica: z.string().describe('The replica that downloads it.'),
});

export const downloadsSchema = z
  .strictObject({
    at: time,
    downloads: z.array(downloadSchema).describe('At most 200, the longest-running first.'),
    total: count.describe('How many run.'),
    bytesPerSecond: bytes.describe('Of all downloads together.'),
    sentBytesPerSecond: bytes.describe('To clients.'),
    requestsPerSecond: z.number().min(0),
    unreachable,
  })
  .describe('Downloads that run.');
export type Downloads = z.output<typeof downloadsSchema>;
export type RunningDownload = z.output<typeof downloadSchema>;
