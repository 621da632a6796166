import { z } from 'zod';
import { duration, size, text } from './scalars.ts';

const SERVICE_ACCOUNT = /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?\/[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/;

const rule = z.strictObject({
  repositories: z
    .string()
    .default('')
    .describe('Prefix of the repositories, without the name of the hosted registry: team-a/. Empty: all of them.'),
  users: z.array(text).default([]).describe('Users of registry.users.'),
  serviceAccounts: z
    .array(z.string().regex(SERVICE_ACCOUNT, 'a service account, <namespace>/<name>'))
    .default([])
    .describe('Service accounts of the cluster: <namespace>/<name>. They log in as the user serviceaccount, with a token as the password.'),
});

const hostedRegistry = z.strictObject({
  hosts: z.array(text).default([]).describe('Hosts in image names that refer to these repositories, such as registry.example.com.'),
  pull: z
    .union([z.literal('anyone'), z.array(rule)], { error: 'anyone, or a list of rules' })
    .default('anyone')
    .describe('Who may pull: every client that reaches the registry, or only those that a rule allows.'),
  push: z.array(rule).default([]).describe('Who may push. Without rules, pushing is not allowed.'),
  delete: z.array(rule).default([]).describe('Who may delete tags, manifests and blobs. Without rules, deleting is not allowed.'),
  immutableTags: z.array(text).default([]).describe('Globs of tags that cannot be changed or deleted once they are pushed, such as v*.'),
  maxBlobSize: size.prefault('128GiB').describe('The largest blob that may be pushed.'),
  quota: z
    .union([size, z.record(z.string(), size)])
    .optional()
    .describe('How many bytes may be stored: in all repositories together, or by prefix, such as { "team-a/": 100GiB }.'),
  retention: z
    .strictObject({
      untagged: duration
        .optional()
        .describe('How long after the push to remove manifests that no tag and no index refers to. By default they stay.'),
      keepTags: z
        .array(
          z.strictObject({
            tags: text.describe('A glob: nightly-*.'),
            newest: z.int().min(1).describe('How many of the matching tags are kept in each repository; older ones are removed.'),
          }),
        )
        .default([])
        .describe('Rules for tags; the first rule that matches a tag applies.'),
    })
    .prefault({})
    .describe('What is removed automatically. Everything else is kept until it is deleted.'),
});

export const hostedSchema = z
  .record(z.string().regex(/^[a-z0-9]+(?:[._-][a-z0-9]+)*$/, 'a name of lower-case letters and digits, joined by . _ or -'), hostedRegistry)
  .prefault({})
  .describe('Repositories to push to, by the first component of their names: local is served as /v2/local/….');

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
