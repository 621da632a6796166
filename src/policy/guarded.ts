import { LRUCache } from 'lru-cache';
import { parseManifest } from '../oci/descriptor.ts';
import { isDigest, type Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import { joinRepository, type Reference, type Repository } from '../oci/reference.ts';
import type { Registry } from '../oci/registry.ts';
import type { FirstSeen } from './first-seen.ts';
import type { KnownTags } from './known-tags.ts';
import type { Rules, Verdict } from './rules.ts';

/** A pull that registry.policy has refused. */
export interface Refusal {
  /** With the upstream's name in front. */
  repository: Repository;
  reference: Reference;
  kind: 'allow' | 'deny' | 'age';
  rule: string;
}

export interface Policy {
  rules: Rules;
  tags: KnownTags;
  /** registry.policy.minimumAge in ms, and when images were first seen; undefined: no minimum age
   *  is set. */
  age: { minimumMs: number; firstSeen: FirstSeen } | undefined;
  /** The usual name of a repository: docker.io/library/nginx. */
  nameOf(this: void, repository: Repository): string;
  refused(this: void, refusal: Refusal): void;
  now(this: void): number;
}

/** Manifests whose contents have been recorded. */
const MAX_NOTED = 10_000;

/** Serves only what the policy allows from `inner`. @param name the prefix of the repositories of
 *  `inner`
 *  @throws OciError DENIED (origin policy), in addition to the errors of `inner`; UNAVAILABLE: the
 *  store, which has to be asked about the image, does not answer */
export function guarded(inner: Registry, name: string, policy: Policy): Registry {
  const { rules, tags, age } = policy;
  if (rules.isEmpty && age === undefined) return inner;
  const noted = new LRUCache<string, true>({ maxSize: MAX_NOTED, sizeCalculation: () => 1 });

  const imageOf = <Ref extends Reference>(repository: Repository, reference: Ref): Image<Ref> => ({
    repository: joinRepository(name, repository),
    reference,
  });

  async function note(
    { repository, reference }: Image<Digest>,
    bytes: Uint8Array,
    firstSeenAt: number,
    signal: AbortSignal,
  ): Promise<void> {
    const key = `${repository}@${reference}`;
    if (noted.has(key)) return;
    tags.noteManifest(repository, reference, bytes);
    if (age !== undefined) await age.firstSeen.inherit(manifestsOf(bytes), firstSeenAt, signal);
    noted.set(key, true);
  }

  return {
    async resolve(repository, reference, context) {
      const image = imageOf(repository, reference);
      await requireReference(policy, image, context.signal);
      const descriptor = await inner.resolve(repository, reference, context);
      if (!isDigest(reference)) tags.noteTag(image.repository, reference, descriptor.digest);
      await requireAge(policy, { ...image, reference: descriptor.digest }, context.signal);
      return descriptor;
    },

    async manifest(repository, reference, context) {
      const { signal } = context;
      const asked = imageOf(repository, reference);
      await requireReference(policy, asked, signal);
      // A manifest that may not be served yet is not fetched: upstreams count that as a pull.
      if (age !== undefined) {
        const { digest } = await inner.resolve(repository, reference, context);
        await requireAge(policy, { ...asked, reference: digest }, signal);
      }
      const manifest = await inner.manifest(repository, reference, context);
      const image = { ...asked, reference: manifest.descriptor.digest };
      if (!isDigest(reference)) tags.noteTag(image.repository, reference, image.reference);
      await note(image, manifest.bytes, await requireAge(policy, image, signal), signal);
      return manifest;
    },

    async stat(repository, digest, context) {
      await requireDigest(policy, imageOf(repository, digest), context.signal);
      return inner.stat(repository, digest, context);
    },

    async blob(repository, digest, context) {
      await requireDigest(policy, imageOf(repository, digest), context.signal);
      return inner.blob(repository, digest, context);
    },

    async *tags(repository, context) {
      const full = joinRepository(name, repository);
      for await (const page of inner.tags(repository, context)) yield page.filter((tag) => rules.tag(full, tag).allowed);
    },

    async referrers(repository, digest, context) {
      await requireDigest(policy, imageOf(repository, digest), context.signal);
      return inner.referrers(repository, digest, context);
    },
  };
}

function manifestsOf(bytes: Uint8Array): Digest[] {
  try {
    return parseManifest(bytes, '').manifests.map(({ digest }) => digest);
  } catch {
    return []; // clients may understand manifests that this program cannot parse
  }
}

function iso(milliseconds: number): string {
  return new Date(milliseconds).toISOString();
}

/** An image, under the name by which the policy knows it. */
interface Image<Ref extends Reference = Reference> {
  repository: Repository;
  reference: Ref;
}

async function requireReference(policy: Policy, { repository, reference }: Image, signal: AbortSignal): Promise<void> {
  if (isDigest(reference)) await requireDigest(policy, { repository, reference }, signal);
  else requireAllowed(policy, { repository, reference }, policy.rules.tag(repository, reference));
}

/** Runs before anything is served: checks the digest by its repository, or by the tags that lead to
 *  it. */
async function requireDigest(policy: Policy, image: Image<Digest>, signal: AbortSignal): Promise<void> {
  const { rules, tags } = policy;
  const { repository, reference: digest } = image;
  if (!rules.dependsOnTags(repository, digest)) return requireAllowed(policy, image, rules.digest(repository, digest, []));
  const recalled = tags.recall(repository, digest);
  if (recalled.length > 0 && rules.digest(repository, digest, recalled).allowed) return;
  requireAllowed(policy, image, rules.digest(repository, digest, await tags.find(repository, digest, signal)));
}

function requireAllowed(policy: Policy, image: Image, verdict: Verdict): void {
  if (verdict.allowed) return;
  const rule = verdict.rule ?? 'registry.policy';
  refuse(policy, image, { kind: rule.startsWith('registry.policy.deny') ? 'deny' : 'allow', rule });
}

/** Only for digests that the upstream has: requests for random digests must not create records.
 *  @returns when the digest was first seen, in ms since the epoch; 0: no minimum age is set */
async function requireAge(policy: Policy, image: Image<Digest>, signal: AbortSignal): Promise<number> {
  const { age } = policy;
  if (age === undefined) return 0;
  const at = await age.firstSeen.at(image.reference, signal);
  const from = at + age.minimumMs;
  if (policy.now() >= from) return at;
  const rule = `registry.policy.minimumAge: this registry first saw it at ${iso(at)}, and serves it from ${iso(from)} on`;
  return refuse(policy, image, { kind: 'age', rule });
}

function refuse(policy: Policy, { repository, reference }: Image, { kind, rule }: Pick<Refusal, 'kind' | 'rule'>): never {
  policy.refused({ repository, reference, kind, rule });
  const image = `${policy.nameOf(repository)}${isDigest(reference) ? '@' : ':'}${reference}`;
  throw new OciError('DENIED', `${image} may not be pulled: ${rule}`, { origin: 'policy' });
}
