import picomatch from 'picomatch';
import { readAll } from '../io/body.ts';
import { MAX_MANIFEST_SIZE, parseManifest } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import { isOciError } from '../oci/error.ts';
import type { PushRegistry } from '../oci/push-registry.ts';
import type { Reference, Repository, Tag } from '../oci/reference.ts';
import { blobKey, parseRepositoryKey, repositoryPrefix } from '../store/keys.ts';
import type { UploadStore } from '../store/upload-store.ts';
import type { Log } from '../telemetry/log.ts';
import { createHostedRecords } from './records.ts';

export interface RetentionRules {
  /** The age in ms at which a manifest that no tag or index names is deleted; undefined: never. */
  untagged?: number | undefined;
  /** The first rule whose glob matches a tag counts. */
  keepTags: readonly { tags: string; newest: number }[];
}

export interface RetentionOptions {
  name: string;
  registry: PushRegistry;
  store: UploadStore;
  rules: RetentionRules;
  /** Of tags that may not be deleted. */
  isImmutable?: (tag: Tag) => boolean;
  /** Deletes nothing. */
  dryRun?: boolean;
  log: Log;
  signal: AbortSignal;
}

/** The contents of a repository. */
interface Contents {
  tags: { tag: Tag; digest: Digest | undefined; at: number }[];
  manifests: Map<Digest, { at: number; names: Digest[]; subject: Digest | undefined }>;
}

/** Deletes the tags and manifests that the rules do not keep, as a client would: no remaining
 *  manifest names deleted content.
 *  @returns the deleted tags (`local/app:1`) and manifests (`local/app@sha256:…`) */
export async function applyRetention(options: RetentionOptions): Promise<string[]> {
  const { name, registry, rules, isImmutable = () => false, dryRun = false, signal } = options;
  if (rules.untagged === undefined && rules.keepTags.length === 0) return [];
  const deleted: string[] = [];
  for await (const repository of registry.repositories({ signal })) {
    const contents = await readContents(options, repository);
    const surplus = new Set(surplusTags(contents, rules).filter(({ tag }) => !isImmutable(tag)));
    for (const { tag } of surplus) if (dryRun || (await remove(options, repository, tag))) deleted.push(`${name}/${repository}:${tag}`);
    if (rules.untagged === undefined) continue;
    const left = dryRun ? { ...contents, tags: contents.tags.filter((tag) => !surplus.has(tag)) } : await readContents(options, repository);
    for (const digest of unnamed(left, Date.now() - rules.untagged))
      if (dryRun || (await remove(options, repository, digest))) deleted.push(`${name}/${repository}@${digest}`);
  }
  return deleted;
}

async function readContents({ name, store, signal }: RetentionOptions, repository: Repository): Promise<Contents> {
  const full = `${name}/${repository}` as Repository;
  const records = createHostedRecords(store);
  const contents: Contents = { tags: [], manifests: new Map() };
  for await (const { key, modified } of store.list(repositoryPrefix(full), { signal })) {
    const record = parseRepositoryKey(key);
    if (record === undefined || record.repository !== full) continue;
    if ('tag' in record) {
      contents.tags.push({ tag: record.tag, digest: await records.tag(full, record.tag, signal), at: modified.getTime() });
      continue;
    }
    if ('subject' in record) continue;
    const manifest = await readManifest(record.member);
    if (manifest !== undefined) contents.manifests.set(record.member, { at: modified.getTime(), ...manifest });
  }
  return contents;

  async function readManifest(digest: Digest): Promise<{ names: Digest[]; subject: Digest | undefined } | undefined> {
    const content = await records.manifest(full, digest, signal);
    const found = content === undefined ? undefined : await store.read(blobKey(digest), { signal });
    const bytes = found === undefined ? undefined : await readAll(found.body, MAX_MANIFEST_SIZE);
    if (content === undefined || bytes === undefined) return undefined;
    const { manifests, subject } = parseManifest(bytes, content.mediaType);
    return { names: manifests.map(({ digest }) => digest), subject };
  }
}

/** The tags in excess of the newest ones that a rule keeps. */
function surplusTags({ tags }: Contents, { keepTags }: RetentionRules): Contents['tags'] {
  const rules = keepTags.map(({ tags, newest }) => ({ matches: picomatch(tags), newest }));
  const surplus: Contents['tags'] = [];
  for (const rule of rules) {
    const own = tags.filter(({ tag }) => rules.find(({ matches }) => matches(tag)) === rule);
    surplus.push(...own.sort((one, other) => other.at - one.at).slice(rule.newest));
  }
  return surplus;
}

/** Manifests older than `before` that no tag, index or remaining subject needs; an index comes
 *  before its manifests. */
function unnamed({ tags, manifests }: Contents, before: number): Digest[] {
  const needed = new Set(tags.flatMap(({ digest }) => (digest === undefined ? [] : [digest])));
  for (const [digest, { at }] of manifests) if (at > before) needed.add(digest);
  for (let size = -1; size !== needed.size;) {
    size = needed.size;
    for (const [digest, { names, subject }] of manifests) {
      // A signature stays as long as the image that it signs.
      if (subject !== undefined && needed.has(subject)) needed.add(digest);
      if (needed.has(digest)) for (const name of names) needed.add(name);
    }
  }
  const rest = [...manifests].filter(([digest]) => !needed.has(digest));
  return rest.sort(([, one], [, other]) => other.names.length - one.names.length).map(([digest]) => digest);
}

/** @returns false if it cannot be deleted now: newly pushed content names it */
async function remove({ name, registry, log, signal }: RetentionOptions, repository: Repository, reference: Reference): Promise<boolean> {
  try {
    await registry.deleteManifest(repository, reference, { signal });
    log.info(
      { event: 'retention-deleted', repository: `${name}/${repository}`, reference },
      'the retention rules deleted a tag or manifest',
    );
    return true;
  } catch (error) {
    if (isOciError(error, 'DENIED', 'MANIFEST_UNKNOWN')) return false;
    throw error;
  }
}
