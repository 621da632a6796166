import type { Digest } from '../oci/digest.ts';
import type { Descriptor } from '../oci/descriptor.ts';
import { refersByDigest, type Reference, type Tag } from '../oci/reference.ts';
import { hasMirrors, type Cache, type Target, type Upstream } from './cache.ts';
import type { FreshnessPolicy } from './freshness.ts';
import type { Manifests } from './manifests.ts';
import type { TagAnswer } from './tag-memory.ts';
import type { Question } from './tag-questions.ts';
import { createTags } from './tags.ts';

/** The digest that a reference resolves to. */
export interface Located extends TagAnswer {
  stale: boolean;
  /** For the metrics. */
  outcome: 'hit' | 'miss' | 'stale';
}

export interface LocateOptions {
  /** The method of the client's request. */
  method: 'GET' | 'HEAD';
  signal: AbortSignal;
}

/** Tags and digests of the repositories of one upstream. */
export interface References {
  /** The digest of a reference, if nothing has to be read for that. */
  recall(target: Target, reference: Reference): Digest | undefined;
  /** Resolves a reference. @throws OciError as `Tags.resolve` does */
  locate(target: Target, reference: Reference, options: LocateOptions): Promise<Located>;
  /** Remembers the descriptor that a HEAD returned. If there are mirrors, it proves no access: it
   *  may come from one of them. Nor does it if the upstream is untrusted. */
  announce(target: Target, descriptor: Descriptor): Descriptor;
}

const HEAD_TIMEOUT_MS = 25_000;

export function createReferences(
  upstream: Upstream,
  { access, announced, tags: memory, records, log }: Cache,
  { manifests, policy }: { manifests: Manifests; policy: FreshnessPolicy & { untrusted?: boolean } },
): References {
  const tags = createTags({ memory, records, policy, log });
  const proves = headProves(upstream, policy);

  function announce({ name }: Target, descriptor: Descriptor): Descriptor {
    if (proves) access.grant(name, descriptor);
    announced.set(`${name}@${descriptor.digest}`, descriptor);
    return descriptor;
  }

  async function headTag(target: Target, tag: Tag, signal: AbortSignal): Promise<TagAnswer> {
    const limit = AbortSignal.any([signal, AbortSignal.timeout(HEAD_TIMEOUT_MS)]);
    const descriptor = await upstream.registry.resolve(target.repository, tag, { signal: limit });
    return { digest: announce(target, descriptor).digest };
  }

  async function getTag(target: Target, tag: Tag, signal: AbortSignal): Promise<TagAnswer> {
    const manifest = await manifests.fetch(target, tag, signal);
    return { digest: manifest.descriptor.digest, manifest };
  }

  /** Asks by GET if the client wants the manifest and nothing is cached, else by HEAD. Where a GET
   *  counts as a pull, always by HEAD: the manifest may be cached under another tag, or another
   *  replica may be the one to fetch it. */
  function questionOf(target: Target, tag: Tag, method: 'GET' | 'HEAD'): Question {
    return {
      ask(known, signal) {
        const byHead = known || policy.rateLimit.countsPulls() || method === 'HEAD';
        return byHead ? headTag(target, tag, signal) : getTag(target, tag, signal);
      },
      async fetchManifest(digest, signal) {
        if ((await manifests.stored(digest, signal)) === undefined) await manifests.fetch(target, digest, signal);
      },
      isKept: (digest) => manifests.isKept(digest),
    };
  }

  async function resolveTag(target: Target, tag: Tag, { method, signal }: LocateOptions): Promise<Located> {
    const question = questionOf(target, tag, method);
    let isMiss = false;
    const ask = (known: boolean, signal: AbortSignal): Promise<TagAnswer> => {
      isMiss = !known;
      return question.ask(known, signal);
    };
    const answer = await tags.resolve(target.name, tag, { ...question, ask }, signal);
    return { ...answer, outcome: answer.stale ? 'stale' : isMiss ? 'miss' : 'hit' };
  }

  const recall = ({ name }: Target, reference: Reference): Digest | undefined =>
    refersByDigest(reference) ? reference : tags.fresh(name, reference);

  return {
    recall,
    announce,
    async locate(target, reference, options) {
      const digest = recall(target, reference);
      return digest === undefined ? resolveTag(target, reference as Tag, options) : { digest, stale: false, outcome: 'hit' };
    },
  };
}

/** Whether an answer to HEAD proves access. */
export function headProves(upstream: Upstream, { untrusted = false }: { untrusted?: boolean }): boolean {
  return !hasMirrors(upstream) && !untrusted;
}
