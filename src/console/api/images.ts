import { z } from 'zod';
import { bytes, count, digest, repository, tag, time } from './common.ts';

export const KEEP_REASONS = ['hosted', 'pinned', 'in-use'] as const;
export const IMAGE_SORTS = ['name', 'size', 'lastUsed', 'pods'] as const;

export const imageSchema = z.strictObject({
  repository,
  name: z.string().describe('The usual name: docker.io/library/nginx:1.27, or …@sha256:… without a tag.'),
  tag: tag.nullable(),
  digest,
  size: bytes.describe('Bytes of its stored blobs; shared blobs count for each image.'),
  wholeSize: bytes.nullable().describe('Bytes when its platforms are completely stored; null: unknown.'),
  complete: z.boolean().describe('Whether all content that the manifest names is stored. An index is complete with one of its platforms.'),
  platforms: z.array(z.string()).describe('The platforms that are stored: linux/amd64, linux/arm/v7.'),
  lastUsed: time.nullable().describe('The day of its last pull, or the exact time if that was recorded.'),
  pods: count.nullable().describe('How many pods of the cluster use it; null: pods cannot be listed.'),
  goneSince: time.nullable().describe('When the upstream was found to have deleted the tag.'),
  kept: z.enum(KEEP_REASONS).nullable().describe('Why pruning keeps it; null: it may be pruned.'),
  pinned: z.boolean().describe('Pinned in this console, as opposed to registry.cache.keep.'),
  denied: z.string().nullable().describe('The rule of registry.policy that currently refuses it.'),
});

export const imagesQuerySchema = z.strictObject({
  search: z.string().max(400).default('').describe('Words; an image matches if its name, tag or digest contains all of them.'),
  filter: z.enum(['all', 'in-use', 'unused', 'gone', 'kept', 'denied', 'incomplete']).default('all'),
  upstream: z.string().max(255).default('').describe('Only the images of this upstream.'),
  sort: z.enum(IMAGE_SORTS).default('name'),
  order: z.enum(['asc', 'desc']).default('asc'),
  offset: z.coerce.number().int().min(0).max(10_000_000).default(0),
  limit: z.coerce.number().int().min(1).max(500).default(50),
});

export const imagesSchema = z
  .strictObject({
    images: z.array(imageSchema),
    total: count.describe('How many images match.'),
    totalBytes: bytes.describe('The sum of their sizes.'),
    offset: count,
    takenAt: time.nullable().describe('When the images were listed; null: they are being listed for the first time.'),
    podsProblem: z.string().nullable().describe('Why the pods of the cluster could not be listed.'),
    upstreams: z.array(z.string()).describe('The upstreams that have images.'),
    truncated: z.boolean().describe('Whether there are more images than the console can list.'),
  })
  .describe('One page of the stored images.');
export type Images = z.output<typeof imagesSchema>;
export type ImageRow = z.output<typeof imageSchema>;
export type ImagesQuery = z.output<typeof imagesQuerySchema>;

export const imageQuerySchema = z.strictObject({ repository, digest });

export const imageDetailSchema = z
  .strictObject({
    repository,
    names: z.array(z.string()).describe('Its usual names, one per tag.'),
    tags: z.array(z.strictObject({ tag, goneSince: time.nullable(), checkedAt: time.nullable(), pinned: z.boolean() })),
    digest,
    mediaType: z.string(),
    size: bytes,
    lastUsed: time.nullable(),
    kept: z.enum(KEEP_REASONS).nullable(),
    pinned: z.boolean(),
    denied: z.string().nullable(),
    firstSeen: time.nullable().describe('When this registry first saw the digest; known if registry.policy.minimumAge is set.'),
    platforms: z
      .array(
        z.strictObject({
          platform: z.string(),
          digest,
          stored: z.boolean(),
          size: bytes.nullable(),
          created: z.string().nullable(),
          layers: z.array(z.strictObject({ digest, mediaType: z.string(), size: bytes, stored: z.boolean() })),
          labels: z.record(z.string(), z.string()).describe('Labels of the image config; untrusted text.'),
        }),
      )
      .max(100),
    annotations: z.record(z.string(), z.string()),
    pods: z
      .array(z.strictObject({ namespace: z.string(), pod: z.string(), container: z.string(), node: z.string().nullable() }))
      .nullable()
      .describe('At most 200 pods that use it; null: the pods cannot be listed.'),
  })
  .describe('One stored image.');
export type ImageDetail = z.output<typeof imageDetailSchema>;
