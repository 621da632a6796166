import { LRUCache } from 'lru-cache';
import { parseManifest } from '../oci/descriptor.ts';
import { isDigest, type Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import { joinRepository, type Reference, type Repository } from '../oci/reference.ts';
import type { Manifest, Registry } from '../oci/registry.ts';
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

  function refuse(repository: Repository, reference: Reference, { kind, rule }: Pick<Refusal, 'kind' | 'rule'>): never {
    policy.refused({ repository, reference, kind, rule });
    const image = `${policy.nameOf(repository)}${isDigest(reference) ? '@' : ':'}${reference}`;
    throw new OciError('DENIED', `${image} may not be pulled: ${rule}`, { origin: 'policy' });
  }

  function require(verdict: Verdict, repository: Repository, reference: Reference): void {
    if (verdict.allowed) return;
    const rule = verdict.rule ?? 'registry.policy';
    refuse(repository, reference, { kind: rule.startsWith('registry.policy.deny') ? 'deny' : 'allow', rule });
  }

  /** Runs before anything is served: checks the digest by its repository, or by the tags that lead
   *  to it. */
  async function requireDigest(repository: Repository, digest: Digest, signal: AbortSignal): Promise<void> {
    if (!rules.dependsOnTags(repository, digest)) return require(rules.digest(repository, digest, []), repository, digest);
    const recalled = tags.recall(repository, digest);
    if (recalled.length > 0 && rules.digest(repository, digest, recalled).allowed) return;
    require(rules.digest(repository, digest, await tags.find(repository, digest, signal)), repository, digest);
  }

  async function requireReference(repository: Repository, reference: Reference, signal: AbortSignal): Promise<void> {
    if (isDigest(reference)) await requireDigest(repository, reference, signal);
    else require(rules.tag(repository, reference), repository, reference);
  }

  /** Only for digests that the upstream has: requests for random digests must not create
   *  records. */
  async function requireAge(repository: Repository, digest: Digest, signal: AbortSignal): Promise<number> {
    if (age === undefined) return 0;
    const at = await age.firstSeen.at(digest, signal);
    const from = at + age.minimumMs;
    if (policy.now() >= from) return at;
    const rule = `registry.policy.minimumAge: this registry first saw it at ${iso(at)}, and serves it from ${iso(from)} on`;
    return refuse(repository, digest, { kind: 'age', rule });
  }

  async function note(repository: Repository, { descriptor, bytes }: Manifest, at: number, signal: AbortSignal): Promise<void> {
    const key = `${repository}@${descriptor.digest}`;
    if (noted.has(key)) return;
    tags.noteManifest(repository, descriptor.digest, bytes);
    if (age !== undefined) await age.firstSeen.inherit(manifestsOf(bytes), at, signal);
    noted.set(key, true);
  }

  return {
    async resolve(repository, reference, context) {
      const full = joinRepository(name, repository);
      await requireReference(full, reference, context.signal);
      const descriptor = await inner.resolve(repository, reference, context);
      if (!isDigest(reference)) tags.noteTag(full, reference, descriptor.digest);
      await requireAge(full, descriptor.digest, context.signal);
      return descriptor;
    },

    async manifest(repository, reference, context) {
      const { signal } = context;
      const full = joinRepository(name, repository);
      await requireReference(full, reference, signal);
      // A manifest that may not be served yet is not fetched: upstreams count that as a pull.
      if (age !== undefined) await requireAge(full, (await inner.resolve(repository, reference, context)).digest, signal);
      const manifest = await inner.manifest(repository, reference, context);
      if (!isDigest(reference)) tags.noteTag(full, reference, manifest.descriptor.digest);
      await note(full, manifest, await requireAge(full, manifest.descriptor.digest, signal), signal);
      return manifest;
    },

    async stat(repository, digest, context) {
      await requireDigest(joinRepository(name, repository), digest, context.signal);
      return inner.stat(repository, digest, context);
    },

    async blob(repository, digest, context) {
      await requireDigest(joinRepository(name, repository), digest, context.signal);
      return inner.blob(repository, digest, context);
    },

    async *tags(repository, context) {
      const full = joinRepository(name, repository);
      for await (const page of inner.tags(repository, context)) yield page.filter((tag) => rules.tag(full, tag).allowed);
    },

    async referrers(repository, digest, context) {
      await requireDigest(joinRepository(name, repository), digest, context.signal);
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
