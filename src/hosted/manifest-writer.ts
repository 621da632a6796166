import { freshRuns } from '../async/fresh-runs.ts';
import { inParallel } from '../async/parallel.ts';
import { digestOf, isDigest, splitDigest, type Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import type { PushRegistry } from '../oci/push-registry.ts';
import type { Repository, Tag } from '../oci/reference.ts';
import { blobKey } from '../store/keys.ts';
import type { BlobWriterOptions } from './blob-writer.ts';
import type { Contents } from './contents.ts';
import { parsePushedManifest, type ManifestParts } from './pushed-manifest.ts';

const STATS_AT_ONCE = 16;
/** Of calls that several pushes share: the store limits their time. */
const NEVER = new AbortController().signal;

export interface ManifestWriterOptions extends Pick<BlobWriterOptions, 'quota'> {
  /** Whether a tag never changes its meaning. */
  isImmutable(this: void, tag: Tag): boolean;
}

/** Writes manifests and tags into hosted repositories. */
export function createManifestWriter(
  contents: Contents,
  { quota, isImmutable }: ManifestWriterOptions,
): Pick<PushRegistry, 'putManifest' | 'deleteManifest'> {
  const { store, records, claimer, locate, readManifest, rememberManifest, tagsOf, requireUnnamed, removeUnnamed } = contents;

  /** Shared by manifests that name the same blob, as those of one base image do. */
  const isStored = freshRuns(async (digest) => (await store.stat(blobKey(digest as Digest), { signal: NEVER })) !== undefined);

  /** @throws OciError MANIFEST_BLOB_UNKNOWN: the repository lacks something that the manifest
   *  names */
  async function requireParts(repository: Repository, { required }: ManifestParts, signal: AbortSignal): Promise<void> {
    await inParallel(required, STATS_AT_ONCE, async (digest) => {
      const [record, stored] = await Promise.all([records.content(repository, digest, signal), isStored(digest)]);
      if (record !== undefined && stored) return;
      throw new OciError('MANIFEST_BLOB_UNKNOWN', `${repository} has no ${digest}, which the manifest names: push it first`);
    });
  }

  /** Checks again after the manifest was recorded: a concurrent deletion may have removed something
   *  that the manifest names, and may have looked for manifests earlier. A deletion checks in the
   *  opposite order (Contents.removeUnnamed), so at least one of the two fails.
   *  @throws OciError MANIFEST_BLOB_UNKNOWN, with the record of `undo` removed */
  async function requireStillThere(
    repository: Repository,
    { parts, undo, signal }: { parts: ManifestParts; undo: Digest | undefined; signal: AbortSignal },
  ): Promise<void> {
    const missing: Digest[] = [];
    await inParallel(parts.required, STATS_AT_ONCE, async (part) => {
      if ((await records.content(repository, part, signal)) === undefined) missing.push(part);
    });
    if (missing.length === 0) return;
    if (undo !== undefined) await records.removeContent(repository, undo, signal);
    throw new OciError('MANIFEST_BLOB_UNKNOWN', `${repository} no longer has ${missing[0]}, which the manifest names: push it again`);
  }

  /** @param digest the new digest of the tags; undefined: they are to be deleted
   *  @throws OciError DENIED: one of the tags is immutable, and has another digest */
  async function requireMutable(
    repository: Repository,
    tags: readonly Tag[],
    { digest, signal }: { digest: Digest | undefined; signal: AbortSignal },
  ): Promise<void> {
    for (const tag of tags.filter(isImmutable)) {
      const before = await records.tag(repository, tag, signal);
      if (before === undefined || before === digest) continue;
      throw new OciError(
        'DENIED',
        `the tag ${tag} of ${repository} is immutable (immutableTags) and refers to ${before}: ${digest === undefined ? 'it cannot be deleted' : 'push another tag'}`,
      );
    }
  }

  async function deleteTag(repository: Repository, tag: Tag, signal: AbortSignal): Promise<void> {
    const digest = await records.tag(repository, tag, signal);
    if (digest === undefined) throw new OciError('MANIFEST_UNKNOWN', `${repository} has no tag ${tag}`);
    await requireMutable(repository, [tag], { digest: undefined, signal });
    await records.removeTag(repository, tag, signal);
  }

  return {
    async putManifest(repository, reference, { bytes, mediaType, tags, signal }) {
      const parts = parsePushedManifest(bytes, mediaType);
      const digest = digestOf(bytes, isDigest(reference) ? splitDigest(reference).algorithm : 'sha256');
      if (isDigest(reference) && reference !== digest) {
        throw new OciError('DIGEST_INVALID', `the manifest has the digest ${digest}, but was pushed as ${reference}`);
      }
      const names = [...(isDigest(reference) ? [] : [reference]), ...tags];
      await requireMutable(repository, names, { digest, signal });
      await claimer.claim([digest, ...parts.named], signal);
      const [known] = await Promise.all([records.content(repository, digest, signal), requireParts(repository, parts, signal)]);
      const descriptor = { digest, mediaType: parts.mediaType, size: bytes.length };
      const add = async (): Promise<void> => {
        await records.addManifest(repository, { descriptor, bytes, signal });
        await requireStillThere(repository, { parts, undo: known === undefined ? digest : undefined, signal });
      };
      await quota.hold({ repository, size: known === undefined ? bytes.length : 0, signal }, add);
      if (parts.subject !== undefined) await records.addReferrer(repository, parts.subject, { ...descriptor, ...parts.referrer }, signal);
      for (const tag of names) await records.setTag(repository, tag, digest, signal);
      // A concurrent deletion of the same manifest has not seen the tags: the push counts as the
      // later one.
      if (names.length > 0 && (await records.content(repository, digest, signal)) === undefined) await add();
      rememberManifest(digest, bytes);
      return { descriptor, subject: parts.subject };
    },

    async deleteManifest(repository, reference, { signal }) {
      if (!isDigest(reference)) return deleteTag(repository, reference, signal);
      const descriptor = await locate(repository, reference, signal);
      await requireUnnamed(repository, reference, signal);
      const tags = await tagsOf(repository, reference, signal);
      await requireMutable(repository, tags, { digest: undefined, signal });
      const { subject } = parsePushedManifest(await readManifest(descriptor, signal), descriptor.mediaType);
      for (const tag of tags) await records.removeTag(repository, tag, signal);
      try {
        await removeUnnamed(repository, descriptor, signal);
      } catch (error) {
        for (const tag of tags) await records.setTag(repository, tag, reference, signal);
        throw error;
      }
      if (subject !== undefined) await records.removeReferrer(repository, subject, reference, signal);
    },
  };
}
