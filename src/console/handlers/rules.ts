import type { Reference, Repository } from '../../oci/reference.ts';
import type { PolicyReport } from '../api/actions.ts';
import type { ApiHandlers } from '../api-server.ts';
import type { Check } from '../../policy/check.ts';

export interface RulesOptions {
  policy: { allow: readonly string[]; deny: readonly string[]; minimumAge: number };
  refusals: Refusals;
  locate(this: void, image: string): { repository: Repository; reference: Reference } | undefined;
  /** @param how `ask`: whether the upstream is asked, too
   *  @throws OciError UNAVAILABLE: the store does not answer */
  check(this: void, repository: Repository, reference: Reference, how: { ask: boolean; signal: AbortSignal }): Promise<Check>;
}

/** The most recent pulls that registry.policy has refused. */
export interface Refusals {
  add(this: void, refusal: { image: string; rule: string }): void;
  list(this: void): PolicyReport['denied'];
}

const MAX_REFUSALS = 100;

export function createRefusals(): Refusals {
  const latest: PolicyReport['denied'] = [];
  return {
    add({ image, rule }) {
      const known = latest.findIndex((own) => own.image === image && own.rule === rule);
      const times = known === -1 ? 0 : (latest.splice(known, 1)[0]?.times ?? 0);
      latest.unshift({ at: new Date().toISOString(), image, rule, times: times + 1 });
      latest.length = Math.min(latest.length, MAX_REFUSALS);
    },
    list: () => [...latest],
  };
}

/** The rules of registry.policy, what they refused, and whether an image would be served. */
export function createRulesHandlers({ policy, refusals, locate, check }: RulesOptions): Pick<ApiHandlers, 'policy' | 'check'> {
  return {
    policy: () => ({ allow: [...policy.allow], deny: [...policy.deny], minimumAgeMs: policy.minimumAge, denied: refusals.list() }),

    async check({ query, signal }) {
      const { image } = query;
      const located = locate(image);
      if (located === undefined) return notServed(image);
      const { repository, reference } = located;
      return { image, repository, reference, ...(await check(repository, reference, { ask: query.ask === 'yes', signal })) };
    },
  };
}

function notServed(image: string): Awaited<ReturnType<ApiHandlers['check']>> {
  const reason = 'no upstream serves its host, or it is not an image name';
  return {
    image,
    repository: null,
    reference: null,
    served: false,
    rule: null,
    reason,
    digest: null,
    firstSeen: null,
    servedFrom: null,
    stored: 'no',
    tag: null,
    upstream: { answer: 'absent', digest: null, message: reason },
  };
}
