import { z } from 'zod';
import { duration, size, text } from './scalars.ts';

const SERVICE_ACCOUNT = /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?\/[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/;

const rule = z.strictObject({
  repositories: z
    .string()
    .default('')
    .describe('The prefix of the repositories, without the registry’s own name: team-a/. Empty: all of them.'),
  users: z.array(text).default([]).describe('Users of registry.users.'),
  serviceAccounts: z
    .array(z.string().regex(SERVICE_ACCOUNT, 'a service account, <namespace>/<name>'))
    .default([])
    .describe('Service accounts of the cluster: <namespace>/<name>. They log in as the user serviceaccount, with a token as the password.'),
});

const hostedRegistry = z.strictObject({
  hosts: z.array(text).default([]).describe('The hosts by which image names mean these repositories: registry.example.com.'),
  pull: z
    .union([z.literal('anyone'), z.array(rule)], { error: 'anyone, or a list of rules' })
    .default('anyone')
    .describe('Who may pull: anyone who reaches the registry, or those that a rule names.'),
  push: z.array(rule).default([]).describe('Who may push. Without rules, pushing is not allowed.'),
  delete: z.array(rule).default([]).describe('Who may delete tags, manifests and blobs. Without rules, deleting is not allowed.'),
  immutableTags: z.array(text).default([]).describe('Globs of tags that keep their meaning once they are pushed: v*.'),
  maxBlobSize: size.prefault('128GiB').describe('The largest blob that may be pushed.'),
  quota: z
    .union([size, z.record(z.string(), size)])
    .optional()
    .describe('How many bytes may be stored: of all repositories together, or by prefix, such as { "team-a/": 100GiB }.'),
  retention: z
    .strictObject({
      untagged: duration
        .optional()
        .describe('Manifests that no tag and no index names are removed this long after they were pushed. Without it, they stay.'),
      keepTags: z
        .array(
          z.strictObject({
            tags: text.describe('A glob: nightly-*.'),
            newest: z.int().min(1).describe('How many of the tags that match are kept, in each repository; older ones are removed.'),
          }),
        )
        .default([])
        .describe('Rules for tags; the first that matches a tag counts.'),
    })
    .prefault({})
    .describe('What is removed by itself. Everything else is kept until it is deleted.'),
});

export const hostedSchema = z
  .record(z.string().regex(/^[a-z0-9]+(?:[._-][a-z0-9]+)*$/, 'a name of lower-case letters and digits, joined by . _ or -'), hostedRegistry)
  .prefault({})
  .describe('Repositories to push to, by the first component of their names: local serves /v2/local/….');

export const usersSchema = z
  .union([text, z.strictObject({ htpasswd: text.describe('Path of the htpasswd file.') }).transform(({ htpasswd }) => htpasswd)], {
    error: 'the path of an htpasswd file',
  })
  .optional()
  .describe(
    'Path of the file with the users of hosted repositories: user:bcrypt lines, as htpasswd -B creates them. Read again when it changes.',
  );

export type HostedConfig = z.output<typeof hostedRegistry>;
export type HostedRule = z.output<typeof rule>;
