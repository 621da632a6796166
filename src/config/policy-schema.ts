import { z } from 'zod';
import { duration, text } from './scalars.ts';

const globs = z.array(text).prefault([]);

export const policySchema = z
  .strictObject({
    allow: globs.describe(
      'Globs of images that may be pulled: docker.io/library/*, ghcr.io/owner/name:1.*. A star matches slashes as well. Empty: all images.',
    ),
    deny: globs.describe('Globs of images that may not be pulled, even if they match registry.policy.allow.'),
    minimumAge: duration
      .prefault(0)
      .describe('An image of an upstream may be pulled this long after this registry first saw its digest. 0: at once.'),
  })
  .prefault({})
  .describe('Which images may be pulled. Others are refused with DENIED and the rule.');
