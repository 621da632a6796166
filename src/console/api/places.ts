import { z } from 'zod';
import { bytes, count, time, unreachable } from './common.ts';
import { rateLimitSchema } from './overview.ts';

const problem = z.string().nullable();

export const upstreamSchema = z.strictObject({
  name: z.string(),
  url: z.string(),
  hosts: z.array(z.string()),
  proxy: z.string().describe('direct, or the URL of the proxy without its password.'),
  onProxyFailure: z.enum(['fail', 'direct']),
  mirrors: z.array(z.strictObject({ url: z.string(), proxy: z.string() })),
  state: z.enum(['up', 'limited', 'refusing', 'proxy-down', 'down', 'unknown']).describe('By the last request; unknown: no requests.'),
  lastRequestAt: time.nullable(),
  lastFailure: z.strictObject({ at: time, outcome: z.string() }).nullable(),
  latency: z
    .strictObject({ p50: z.number(), p95: z.number(), requests: count })
    .nullable()
    .describe("Milliseconds until the upstream's headers, in the last hour."),
  hour: z.strictObject({ requests: count, failures: count, bytes }),
  rateLimit: rateLimitSchema.nullable(),
});
export const upstreamsSchema = z
  .strictObject({ upstreams: z.array(upstreamSchema), unreachable })
  .describe('The configured upstreams, and other hosts that were used since the registry started.');
export type Upstreams = z.output<typeof upstreamsSchema>;
export type UpstreamReport = z.output<typeof upstreamSchema>;

export const clashSchema = z
  .strictObject({
    enabled: z.boolean().describe('Whether registry.console.clash is set.'),
    problem: problem.describe('Why it cannot be reached, or why its config is not in use.'),
    mode: z.string().nullable(),
    port: count.nullable().describe('Its port on 127.0.0.1.'),
    version: z.string().nullable().describe('The version of mihomo.'),
    running: z.boolean(),
    proven: z.boolean().describe('Whether a request has succeeded with the config in use.'),
    restarts: count,
    chosen: z.string().nullable().describe('The node in use.'),
    preferred: z
      .string()
      .nullable()
      .describe('The node that was selected in the console; null: the fastest one is selected automatically.'),
    traffic: z.strictObject({ uploadedBytes: bytes, downloadedBytes: bytes, connections: count }),
    subscriptions: z.array(
      z.strictObject({
        name: z.string(),
        fetchedAt: time.nullable(),
        nodes: count,
        usedBytes: bytes.nullable(),
        leftBytes: bytes.nullable(),
        expires: z.string().nullable(),
        problem,
      }),
    ),
    nodes: z
      .array(
        z.strictObject({
          name: z.string(),
          type: z.string(),
          subscription: z.string().nullable(),
          alive: z.boolean().nullable().describe('null: not tested yet.'),
          delayMs: z.number().nullable(),
        }),
      )
      .max(2000),
    notes: z.array(z.string()),
  })
  .describe('The clash proxy next to the replica that answers.');
export type ClashReport = z.output<typeof clashSchema>;

export const agentsSchema = z
  .strictObject({
    nodes: z
      .array(
        z.strictObject({
          node: z.string().describe('The name reported by its agent, else its address.'),
          address: z.string(),
          lastSeen: time.nullable(),
          hour: z.strictObject({ pulls: count, bytes, errors: count }),
          agent: z.enum(['ready', 'not-ready', 'unknown']).describe('unknown: the pods of the cluster cannot be listed.'),
        }),
      )
      .max(5000)
      .describe('The nodes that have pulled since the registry started, and those that have an agent.'),
    problem: problem.describe('Why the pods of agents cannot be listed.'),
    unreachable,
  })
  .describe('The agents of the nodes.');
export type AgentsReport = z.output<typeof agentsSchema>;

export const webhookQuerySchema = z.strictObject({
  search: z.string().max(400).default('').describe('Words to find in the namespace, the pod or the image.'),
  rewritten: z.enum(['all', 'yes', 'no']).default('all'),
  offset: z.coerce.number().int().min(0).max(10_000_000).default(0),
  limit: z.coerce.number().int().min(1).max(500).default(100),
});
export const webhookSchema = z
  .strictObject({
    enabled: z.boolean().describe('Whether registry.console.webhook is set.'),
    instances: z.array(z.strictObject({ address: z.string(), ready: z.boolean(), problem })),
    reviews: z.array(z.strictObject({ outcome: z.string(), count })).describe('Admission reviews by outcome since the instances started.'),
    problem: problem.describe('Why the pods of the cluster cannot be listed.'),
    takenAt: time.nullable().describe('When the pods were listed.'),
    reasons: z.array(z.strictObject({ reason: z.string(), text: z.string(), images: count })).describe('Images of pods by reason.'),
    images: z.array(
      z.strictObject({
        namespace: z.string(),
        pod: z.string(),
        container: z.string(),
        image: z.string(),
        original: z.string().nullable(),
        reason: z.string().describe('rewritten, or the reason why not.'),
        text: z.string().describe('The reason in words.'),
      }),
    ),
    total: count,
    offset: count,
  })
  .describe('The images of pods, and why each was or was not rewritten.');
export type WebhookReport = z.output<typeof webhookSchema>;

export const replicaSchema = z.strictObject({
  address: z.string(),
  self: z.boolean().describe('The replica that answers.'),
  reachable: z.boolean(),
  problem,
  version: z.string().nullable(),
  startedAt: time.nullable(),
  memoryBytes: bytes.nullable(),
  runningDownloads: count.nullable(),
});
export const replicasSchema = z.strictObject({ replicas: z.array(replicaSchema) }).describe('The replicas of this registry.');
export type Replicas = z.output<typeof replicasSchema>;
