import { z } from 'zod';
import { bytes, count, digest, repository, tag, time } from './common.ts';

export const warmSchema = z.strictObject({
  image: z.string().min(1).max(500).describe('The image, as written in pods: nginx:1.27, ghcr.io/owner/name@sha256:….'),
  platforms: z.array(z.string().max(100)).max(20).default([]).describe('linux/amd64, or all. Empty: registry.warm.platforms.'),
});

export const pinSchema = z
  .strictObject({ repository, tag: tag.optional(), digest: digest.optional() })
  .describe('Either a tag or a digest.');

export const deleteTagSchema = z.strictObject({
  repository,
  tag,
  digest: digest.optional().describe('The digest of the tag when it was shown. If the tag has moved since, nothing is deleted (CONFLICT).'),
});

export const deletedSchema = z
  .strictObject({
    deleted: z.boolean().describe('False: the tag had already been deleted.'),
    note: z.string().describe('The effect of deleting this tag, for display.'),
  })
  .describe('The result of deleting a tag.');
export type Deleted = z.output<typeof deletedSchema>;

export const pruneSchema = z.strictObject({
  dryRun: z.boolean(),
  plan: z.string().max(100).optional().describe('The id of the dry run whose result is to be pruned. Required without dryRun.'),
});

export const chooseNodeSchema = z.strictObject({
  node: z.string().max(500).nullable().describe('The name of a node; null: select the fastest one automatically.'),
});

export const checkQuerySchema = z.strictObject({
  image: z.string().min(1).max(500),
  ask: z.enum(['yes', 'no']).default('yes').describe('no: only what is stored here, at once, without a question to the upstream.'),
});
export const checkSchema = z
  .strictObject({
    image: z.string(),
    repository: repository.nullable().describe('null: no upstream serves its host.'),
    reference: z.string().nullable(),
    served: z.boolean(),
    rule: z.string().nullable().describe('The rule of registry.policy that decides.'),
    reason: z.string().describe('Why it is served or not, for display.'),
    digest: digest.nullable(),
    firstSeen: time.nullable(),
    servedFrom: time.nullable().describe('From when on registry.policy.minimumAge allows it.'),
    stored: z.enum(['complete', 'partly', 'no']),
    tag: z
      .strictObject({ digest, checkedAt: time, fresh: z.boolean(), goneSince: time.nullable() })
      .nullable()
      .describe('The cached state of the tag.'),
    upstream: z.strictObject({
      answer: z.enum(['found', 'absent', 'refused', 'limited', 'unreachable', 'not-asked']),
      digest: digest.nullable(),
      message: z.string(),
    }),
  })
  .describe('Whether an image would be served, and why.');
export type Check = z.output<typeof checkSchema>;

export const jobSchema = z
  .strictObject({
    id: z.string(),
    kind: z.enum(['warm', 'prune-dry-run', 'prune']),
    what: z.string().describe('The image, or the scope of the pruning.'),
    user: z.string(),
    state: z.enum(['running', 'done', 'failed']),
    startedAt: time,
    endedAt: time.nullable(),
    step: z.string().describe('The current step.'),
    done: count,
    total: count.describe('0: not known yet.'),
    problem: z.string().nullable(),
    result: z
      .strictObject({
        images: z.array(z.strictObject({ names: z.array(z.string()), lastUsed: time, because: z.enum(['age', 'size']) })).max(1000),
        imageCount: count,
        blobs: count,
        bytes,
        records: count,
        kept: count,
      })
      .nullable()
      .describe('For pruning: the removed images and blobs, or those that would be removed.'),
  })
  .describe('A long-running action.');
export type Job = z.output<typeof jobSchema>;

export const jobsSchema = z
  .strictObject({ jobs: z.array(jobSchema).max(50) })
  .describe('The recent actions of this replica, newest first.');
export type Jobs = z.output<typeof jobsSchema>;

export const policySchema = z
  .strictObject({
    allow: z.array(z.string()),
    deny: z.array(z.string()),
    minimumAgeMs: count,
    denied: z
      .array(z.strictObject({ at: time, image: z.string(), rule: z.string(), times: count }))
      .max(100)
      .describe('The recent refusals of this replica, each with its count.'),
  })
  .describe('registry.policy.');
export type PolicyReport = z.output<typeof policySchema>;
