import { LRUCache } from 'lru-cache';
import type { WebhookConfig } from '../config/schema.ts';
import type { Fields } from '../io/untrusted.ts';
import type { Decision } from './decision.ts';
import { globs } from '../oci/globs.ts';
import type { ImageFacts } from './image-rules.ts';
import { createPodSecrets, type PodSecrets, type SecretLookup } from './pod-secrets.ts';
import { withIds } from './rewrite-image.ts';

/** Decides on images of hosts that are served, by the pull secrets of their pod.
 *  @param plain its rewritten name as a public image */
export type NameOf = (image: string, plain: string, facts: ImageFacts) => Decision;

interface Remembered {
  secrets: PodSecrets['known'];
  decision: Decision;
}

/** Decisions that are remembered, and the length of their keys. */
const REMEMBERED = { max: 2_000, keyLength: 1_024 };

/** @returns a function of a pod */
export function createPrivateImages(config: WebhookConfig, secretsOf: SecretLookup): (pod: Fields, namespace: string) => NameOf {
  const { pullSecrets, registryHost } = config;
  const readSecrets = createPodSecrets({ secretsOf, isIgnored: globs(config.ignorePullSecrets) });
  /** Pods of a workload name the same images and Secrets. A Secret that has changed is another
   *  object. */
  const remembered = new LRUCache<string, Remembered>({ max: REMEMBERED.max });

  function decide(plain: string, { repository }: ImageFacts, { entriesFor }: PodSecrets): Decision {
    const found = entriesFor(repository);
    if ('reason' in found) return found;
    if (found.ids.length === 0) return { image: plain };
    if (pullSecrets === 'skip') return { reason: 'private' };
    const name = withIds(plain, found.ids, registryHost);
    return name === undefined ? { reason: 'name-too-long' } : { image: name };
  }

  return (pod, namespace) => {
    let secrets: PodSecrets | undefined;
    return (image, plain, facts) => {
      if (pullSecrets === 'rewrite' || facts.isPulledByAll) return { image: plain };
      secrets ??= readSecrets(pod, namespace);
      const { known, id } = secrets;
      if (known.length === 0) return decide(plain, facts, secrets);
      const key = `${id}\n${image}`;
      const before = remembered.get(key);
      if (before !== undefined && isSame(before.secrets, known)) return before.decision;
      const decision = decide(plain, facts, secrets);
      // The limit of comparisons is for a pod, not for an image.
      const isLimited = 'reason' in decision && decision.reason === 'pull-secret';
      if (!isLimited && key.length <= REMEMBERED.keyLength) remembered.set(key, { secrets: known, decision });
      return decision;
    };
  };
}

function isSame(one: PodSecrets['known'], other: PodSecrets['known']): boolean {
  return one.length === other.length && one.every((secret, index) => secret === other[index]);
}
