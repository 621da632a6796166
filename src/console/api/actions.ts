import { z } from 'zod';
import { bytes, count, digest, repository, tag, time } from './common.ts';

export const warmSchema = z.strictObject({
  image: z.string().min(1).max(500).describe('As pods name it: nginx:1.27, ghcr.io/owner/name@sha256:….'),
  platforms: z.array(z.string().max(100)).max(20).default([]).describe('linux/amd64, or all. Empty: as registry.warm.platforms says.'),
});

export const pinSchema = z.strictObject({ repository, tag: tag.optional(), digest: digest.optional() }).describe('One of tag and digest.');

export const deleteTagSchema = z.strictObject({
  repository,
  tag,
  digest: digest
    .optional()
    .describe('What the tag meant when it was shown. If it means something else by now, nothing is deleted (CONFLICT).'),
});

export const deletedSchema = z
  .strictObject({
    deleted: z.boolean().describe('False: somebody else had deleted it.'),
    note: z.string().describe('What deleting means for this tag, for people.'),
  })
  .describe('What has been deleted.');
export type Deleted = z.output<typeof deletedSchema>;

export const pruneSchema = z.strictObject({
  dryRun: z.boolean(),
  plan: z.string().max(100).optional().describe('The id of the job that was the dry run. Needed without dryRun: prune what has been seen.'),
});

export const chooseNodeSchema = z.strictObject({
  node: z.string().max(500).nullable().describe('The name of a node; null: the fastest one, automatically.'),
});

export const checkQuerySchema = z.strictObject({ image: z.string().min(1).max(500) });
export const checkSchema = z
  .strictObject({
    image: z.string(),
    repository: repository.nullable().describe('null: no upstream has its host.'),
    reference: z.string().nullable(),
    served: z.boolean(),
    rule: z.string().nullable().describe('The rule of registry.policy that decides.'),
    reason: z.string().describe('Why it is served or not, for people.'),
    digest: digest.nullable(),
    firstSeen: time.nullable(),
    servedFrom: time.nullable().describe('When registry.policy.minimumAge will let it through.'),
    stored: z.enum(['complete', 'partly', 'no']),
    tag: z
      .strictObject({ digest, checkedAt: time, fresh: z.boolean(), goneSince: time.nullable() })
      .nullable()
      .describe('What the cache knows of the tag.'),
    upstream: z.strictObject({
      answer: z.enum(['found', 'absent', 'refused', 'limited', 'unreachable']),
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
    what: z.string().describe('The image, or what is pruned.'),
    user: z.string(),
    state: z.enum(['running', 'done', 'failed']),
    startedAt: time,
    endedAt: time.nullable(),
    step: z.string().describe('What it does now.'),
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
      .describe('Of a pruning: what was removed, or would be.'),
  })
  .describe('An action that takes its time.');
export type Job = z.output<typeof jobSchema>;

export const jobsSchema = z
  .strictObject({ jobs: z.array(jobSchema).max(50) })
  .describe('The latest actions of this replica, the newest first.');
export type Jobs = z.output<typeof jobsSchema>;

export const policySchema = z
  .strictObject({
    allow: z.array(z.string()),
    deny: z.array(z.string()),
    minimumAgeMs: count,
    denied: z
      .array(z.strictObject({ at: time, image: z.string(), rule: z.string(), times: count }))
      .max(100)
      .describe('The latest refusals of this replica, each with how often it was made.'),
  })
  .describe('registry.policy.');
export type PolicyReport = z.output<typeof policySchema>;
