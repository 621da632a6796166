import { z } from 'zod';
import { isDigest } from '../../oci/digest.ts';
import { isRepository, isTag } from '../../oci/reference.ts';

// The shapes of the console's JSON API: every response and every body is checked, documented and
// typed by one of the schemas of this folder. Times are ISO 8601 in UTC, sizes are bytes, durations
// are milliseconds. An unknown value is null.

export const time = z.iso.datetime().describe('ISO 8601, in UTC.');
export const bytes = z.number().min(0);
export const count = z.int().min(0);

export const repository = z
  .string()
  .refine(isRepository, 'the name of a repository, such as dockerhub/library/nginx')
  .describe('The repository in this registry, which starts with the name of the upstream: dockerhub/library/nginx.');
export const tag = z.string().refine(isTag, 'a tag').describe('A tag.');
export const digest = z.string().refine(isDigest, 'a digest such as sha256:…').describe('A digest: sha256:….');

/** Every response with a status of 400 or more. */
export const errorSchema = z
  .strictObject({
    error: z.strictObject({
      code: z
        .enum([
          'BAD_REQUEST',
          'UNAUTHORIZED',
          'DENIED',
          'NOT_FOUND',
          'METHOD_NOT_ALLOWED',
          'CONFLICT',
          'TOO_MANY_REQUESTS',
          'UNAVAILABLE',
          'INTERNAL',
        ])
        .describe('The error code, for programs.'),
      message: z.string().describe('The error and what to do about it, in English.'),
    }),
  })
  .describe('An error.');
export type ApiError = z.output<typeof errorSchema>;

/** Replicas whose part is missing in a response that covers all of them. */
export const unreachable = z
  .array(z.strictObject({ address: z.string(), problem: z.string() }))
  .describe('Replicas that did not answer, so that their data is missing.');

export const emptySchema = z.strictObject({}).describe('Nothing.');
