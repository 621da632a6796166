import type { Digest } from '../oci/digest.ts';
import { isDigest } from '../oci/digest.ts';
import { isAbsent, isOciError } from '../oci/error.ts';
import type { Descriptor } from '../oci/descriptor.ts';
import type { Reference, Repository, Tag } from '../oci/reference.ts';
import { blobKey, tagKey } from '../store/keys.ts';
import type { Store } from '../store/store.ts';
import { readManifest } from '../upkeep/inventory.ts';
import { readTag } from '../upkeep/tags.ts';
import type { Policy } from './guarded.ts';
import type { Verdict } from './rules.ts';

/** Whether an image would be served, and its state. Times are ISO 8601. */
export interface Check {
  served: boolean;
  /** The rule of registry.policy that decides; null: no rule matches. */
  rule: string | null;
  /** For display. */
  reason: string;
  digest: Digest | null;
  firstSeen: string | null;
  /** From when on registry.policy.minimumAge allows the image, if not yet. */
  servedFrom: string | null;
  stored: 'complete' | 'partly' | 'no';
  /** The cached state of the tag. */
  tag: { digest: Digest; checkedAt: string; fresh: boolean; goneSince: string | null } | null;
  upstream: { answer: 'found' | 'absent' | 'refused' | 'limited' | 'unreachable' | 'not-asked'; digest: Digest | null; message: string };
}

export interface CheckOptions {
  policy: Policy;
  store: Store;
  /** In ms. */
  tagTtl: number;
  /** Asks the upstream itself; undefined: the answer is that of the store alone.
   *  @throws OciError as `Registry.resolve` does */
  askUpstream: ((this: void, signal: AbortSignal) => Promise<Descriptor>) | undefined;
  signal: AbortSignal;
}

/** @throws OciError UNAVAILABLE: the store does not answer */
export async function checkImage(repository: Repository, reference: Reference, options: CheckOptions): Promise<Check> {
  const { store, signal } = options;
  const [tag, upstream] = await Promise.all([
    isDigest(reference) ? null : readCachedTag(repository, reference, options),
    askUpstream(options),
  ]);
  const digest = isDigest(reference) ? reference : (upstream.digest ?? tag?.digest ?? null);
  const [verdict, age, stored] = await Promise.all([
    judge(repository, reference, options),
    judgeAge(digest, options),
    digest === null ? ('no' as const) : howStored(store, digest, signal),
  ]);
  const rule = verdict.allowed ? (age.rule ?? verdict.rule ?? null) : (verdict.rule ?? null);
  const isAllowed = verdict.allowed && age.rule === undefined;
  const isKnown =
    upstream.answer === 'found' || (upstream.answer !== 'absent' && digest !== null && stored !== 'no') || isGoneButServed(tag);
  return {
    served: isAllowed && isKnown,
    rule,
    reason: isAllowed ? reasonOf({ upstream, isKnown, tag }) : (rule ?? ''),
    digest,
    firstSeen: age.firstSeen,
    servedFrom: age.servedFrom,
    stored,
    tag,
    upstream,
  };
}

async function readCachedTag(repository: Repository, tag: Tag, { store, tagTtl, signal }: CheckOptions): Promise<Check['tag']> {
  const [content, object] = await Promise.all([
    readTag(store, { repository, tag }, { signal }),
    store.stat(tagKey(repository, tag), { signal }),
  ]);
  if (content === undefined || object === undefined) return null;
  const checkedAt = object.modified;
  return {
    digest: content.digest,
    checkedAt: checkedAt.toISOString(),
    fresh: Date.now() - checkedAt.getTime() < tagTtl,
    goneSince: content.goneSince ?? null,
  };
}

async function askUpstream({ askUpstream, signal }: CheckOptions): Promise<Check['upstream']> {
  if (askUpstream === undefined) return { answer: 'not-asked', digest: null, message: 'the upstream was not asked' };
  try {
    const { digest } = await askUpstream(signal);
    return { answer: 'found', digest, message: 'the upstream has it' };
  } catch (error) {
    signal.throwIfAborted();
    const message = error instanceof Error ? error.message : String(error);
    return { answer: answerOf(error), digest: null, message };
  }
}

function answerOf(error: unknown): Check['upstream']['answer'] {
  if (isAbsent(error)) return 'absent';
  if (isOciError(error, 'UNAUTHORIZED', 'DENIED')) return 'refused';
  return isOciError(error, 'TOOMANYREQUESTS') ? 'limited' : 'unreachable';
}

async function judge(repository: Repository, reference: Reference, { policy, signal }: CheckOptions): Promise<Verdict> {
  const { rules, tags } = policy;
  if (!isDigest(reference)) return rules.tag(repository, reference);
  const known = rules.dependsOnTags(repository, reference) ? await tags.find(repository, reference, signal) : [];
  return rules.digest(repository, reference, known);
}

interface Age {
  rule: string | undefined;
  firstSeen: string | null;
  servedFrom: string | null;
}

async function judgeAge(digest: Digest | null, { policy, signal }: CheckOptions): Promise<Age> {
  if (policy.age === undefined || digest === null) return { rule: undefined, firstSeen: null, servedFrom: null };
  const { minimumMs, firstSeen } = policy.age;
  const at = await firstSeen.recall(digest, signal);
  if (at === undefined) {
    return {
      rule: 'registry.policy.minimumAge: this registry has not seen the image yet; the time counts from the first pull',
      firstSeen: null,
      servedFrom: null,
    };
  }
  const from = new Date(at + minimumMs).toISOString();
  const isYoung = policy.now() < at + minimumMs;
  return {
    rule: isYoung ? `registry.policy.minimumAge: the image is served from ${from} on` : undefined,
    firstSeen: new Date(at).toISOString(),
    servedFrom: isYoung ? from : null,
  };
}

/** For an index, the pulled platforms are counted. */
async function howStored(store: Store, digest: Digest, signal: AbortSignal): Promise<Check['stored']> {
  const content = await readManifest(store, digest, { signal });
  if (content === undefined || content === 'corrupt') return 'no';
  if (content.manifests.length === 0) {
    const blobs = await Promise.all(content.blobs.map((blob) => store.stat(blobKey(blob.digest), { signal })));
    return blobs.includes(undefined) ? 'partly' : 'complete';
  }
  const parts = await Promise.all(content.manifests.map((manifest) => howStored(store, manifest.digest, signal)));
  const pulled = parts.filter((part) => part !== 'no');
  return pulled.length > 0 && pulled.every((part) => part === 'complete') ? 'complete' : 'partly';
}

function isGoneButServed(tag: Check['tag']): boolean {
  return tag?.goneSince !== null && tag !== null;
}

function reasonOf({ upstream, isKnown, tag }: Pick<Check, 'upstream' | 'tag'> & { isKnown: boolean }): string {
  if (upstream.answer === 'found') return 'no rule refuses it, and the upstream has it';
  if (isGoneButServed(tag)) return 'the upstream no longer has it; it is served for as long as it is kept (onDeleted: serve)';
  if (isKnown) return `it is served from the cache, since the upstream does not confirm it: ${upstream.message}`;
  return upstream.message;
}
