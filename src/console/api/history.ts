import { z } from 'zod';
import { bytes, count, time, unreachable } from './common.ts';

export const historyQuerySchema = z.strictObject({ window: z.enum(['hour', 'day']).default('hour') });

const series = <Value extends z.ZodType>(value: Value) => z.array(value).max(400);

export const historySchema = z
  .strictObject({
    window: z.enum(['hour', 'day']),
    stepSeconds: count.describe('The interval between two points.'),
    since: time.describe('The start of the first point. A point covers the time from its start to the next one.'),
    requests: series(count).describe('Requests for manifests and blobs.'),
    hits: series(count),
    misses: series(count),
    errors: series(count),
    sentBytes: series(bytes).describe('Bytes sent to clients: all of them, from the cache and from upstreams.'),
    upstreamBytes: series(bytes).describe('Bytes received from upstreams.'),
    upstreamRequests: series(count).describe('Requests to upstreams.'),
    latencyMs: series(z.number().nullable()).describe("Mean time until an upstream's headers; null: no requests."),
    latencyMaxMs: series(z.number().nullable()),
    manifests: series(count).describe('Answered requests for manifests.'),
    answerMs: series(z.number().nullable()).describe('Mean response time of requests for manifests; null: no requests.'),
    unreachable,
  })
  .describe('Counts in steps of equal length, oldest first. Times before the start of the process have zeros.');
export type History = z.output<typeof historySchema>;
