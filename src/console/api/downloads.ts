import { z } from 'zod';
import { bytes, count, digest, repository, tag, time, unreachable } from './common.ts';

export const downloadSchema = z.strictObject({
  digest,
  repository,
  image: z
    .strictObject({ name: z.string(), tag: tag.nullable() })
    .describe(
      'The usual name of its image, and the tag, if only one tag of the repository is incompletely stored: docker.io/library/nginx, 1.27.',
    ),
  upstream: z.string(),
  source: z.enum(['storage', 'replica', 'upstream']).describe('The current source of its bytes.'),
  receivedBytes: bytes,
  size: bytes.nullable().describe('The size of the whole blob.'),
  bytesPerSecond: bytes.describe('Average over the last seconds.'),
  startedAt: time,
  readers: count.describe('Clients that read it.'),
  replica: z.string().describe('The replica that downloads it.'),
});

export const downloadsSchema = z
  .strictObject({
    at: time,
    downloads: z.array(downloadSchema).describe('At most 200, the longest-running first.'),
    total: count.describe('The number of running downloads.'),
    bytesPerSecond: bytes.describe('The speed of all downloads together.'),
    sentBytesPerSecond: bytes.describe('The speed to clients.'),
    requestsPerSecond: z.number().min(0),
    unreachable,
  })
  .describe('The running downloads.');
export type Downloads = z.output<typeof downloadsSchema>;
export type RunningDownload = z.output<typeof downloadSchema>;
