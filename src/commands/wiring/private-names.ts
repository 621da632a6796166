import type { Upstream } from '../../cache/cache.ts';
import type { CachePolicy } from '../../cache/cached.ts';
import { createExpiringCache } from '../../io/expiring-cache.ts';
import { OciError } from '../../oci/error.ts';
import { REFUSED_LIFE_MS } from '../../cache/freshness.ts';
import { isPrivateComponent, parsePrivateName } from '../../oci/private-name.ts';
import type { Repository } from '../../oci/reference.ts';
import type { Registry } from '../../oci/registry.ts';
import type { PullCredential } from '../../pull-secrets/secret-index.ts';
import { firstAllowed } from '../../registry/first-allowed.ts';
import { routed, type Route } from '../../registry/routed.ts';
import { createPrivateUpstream, type KnownUpstream, type PrivateUpstream } from './private-upstreams.ts';
import type { UpstreamContext } from './upstreams.ts';

export interface PrivateNamesOptions {
  /** The credentials that an id of a pull secret stands for; undefined: there is no such id, or its
   *  Secret was deleted. */
  credentialOf(this: void, id: string): PullCredential | undefined;
  /** By the first component of a repository. */
  upstreamOf(this: void, name: string): KnownUpstream | undefined;
  policyOf(this: void, name: string, upstream: PrivateUpstream): CachePolicy;
  /** Whether `credentialOf` knows every pull secret. Until then, unknown names may still exist. */
  isComplete(this: void): boolean;
  /** Called for a name with no known id. */
  unknown(this: void): void;
  metrics: UpstreamContext['metrics'];
}

/** An upstream that is read with one pull secret. */
interface Reading {
  credential: PullCredential;
  upstream: Upstream;
  policy: CachePolicy;
}

type MakeRegistry = (upstream: Upstream, policy: CachePolicy) => Registry;

export interface PrivateNames {
  /** @returns a function of the first component of a repository; undefined: it has no known id
   *  @throws OciError UNAVAILABLE: the pull secrets are still being read */
  routesBy(this: void, make: MakeRegistry): (component: string) => Route | undefined;
}

const MAX_READINGS = 1000;
const IDLE_LIFE_MS = 15 * 60_000;
/** How long the secret that an upstream accepted last is tried first. */
const PREFERRED_MS = 60_000;

/** The repositories that are read with the pull secrets of pods: `by-<ids>/<upstream>/<repository>`
 *  (promise 18). Each secret has an upstream of its own, created when it is first needed, and each
 *  request uses only secrets that exist now and match the repository. */
export function createPrivateNames(options: PrivateNamesOptions): PrivateNames {
  const { credentialOf, isComplete, upstreamOf, policyOf, unknown, metrics } = options;
  const readings = createExpiringCache<string, Reading>({ max: MAX_READINGS, ttl: IDLE_LIFE_MS, updateAgeOnGet: true });

  function readingOf(id: string, credential: PullCredential, known: KnownUpstream): Reading {
    const key = `${id} ${known.name}`;
    const before = readings.get(key);
    if (before?.credential === credential) return before; // else the password has changed
    const { username, password } = credential;
    const upstream = createPrivateUpstream(known, [{ repositories: '', username, password }], metrics);
    const usual = policyOf(known.name, upstream);
    const policy = { ...usual, tagTtl: Math.min(usual.tagTtl, REFUSED_LIFE_MS), capability: `by-${id}` };
    const reading = { credential, upstream: upstream.upstream, policy };
    readings.set(key, reading);
    return reading;
  }

  return {
    routesBy(make) {
      const registries = new WeakMap<Reading, Registry>();
      const preferred = createExpiringCache<string, Registry>({ max: MAX_READINGS, ttl: PREFERRED_MS });

      const registryOf = (reading: Reading): Registry => {
        const registry = registries.get(reading) ?? make(reading.upstream, reading.policy);
        registries.set(reading, registry);
        return registry;
      };

      function routeOf(component: string, credentials: readonly (readonly [string, PullCredential])[], known: KnownUpstream): Route {
        const { hosts, defaultNamespace } = known.config;
        const candidatesFor = (repository: Repository): Registry[] => {
          const own = credentials.filter(([, { covers }]) => hosts.some((host) => covers(`${host}/${repository}`)));
          const registries = own.map(([id, credential]) => registryOf(readingOf(id, credential, known)));
          const first = preferred.get(`${component}/${known.name}/${repository}`);
          return first === undefined ? registries : registries.toSorted((a, b) => Number(b === first) - Number(a === first));
        };
        const allowed = (repository: Repository, registry: Registry): void =>
          void preferred.set(`${component}/${known.name}/${repository}`, registry);
        return { registry: firstAllowed({ candidatesFor, allowed }), defaultNamespace };
      }

      return (component) => {
        if (!isPrivateComponent(component)) return undefined;
        const ids = parsePrivateName(`${component}/x`)?.ids ?? [];
        const credentials = ids.flatMap((id) => {
          const credential = credentialOf(id);
          return credential === undefined ? [] : [[id, credential] as const];
        });
        if (credentials.length === 0) {
          if (!isComplete()) throw new OciError('UNAVAILABLE', 'the pull secrets are still being read; try again', { retryAfter: 2 });
          unknown();
          return undefined;
        }
        const otherwise = (name: string): Route | undefined => {
          const known = upstreamOf(name);
          return known === undefined ? undefined : routeOf(component, credentials, known);
        };
        return { registry: routed({}, { otherwise }) };
      };
    },
  };
}
