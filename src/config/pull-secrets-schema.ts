import { z } from 'zod';
import { text } from './scalars.ts';

export const pullSecretsSchema = z
  .strictObject({
    namespaces: z
      .array(z.string().regex(/^[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?$/, 'the name of a namespace'))
      .prefault([])
      .describe('Namespaces whose pull secrets are read. The process needs permission to list and watch their Secrets.'),
    allNamespaces: z.boolean().prefault(false).describe('Read the pull secrets of every namespace; needs a ClusterRole.'),
    keyFile: text
      .optional()
      .describe(
        'A file with at least 16 random characters, the same for every webhook and registry, from which the names of private images are derived. When it changes, all of these names change.',
      ),
  })
  .superRefine(({ namespaces, allNamespaces, keyFile }, check) => {
    if (keyFile === undefined && (allNamespaces || namespaces.length > 0))
      check.addIssue({ code: 'custom', path: ['keyFile'], message: 'a file with at least 16 random characters', input: keyFile });
  });
