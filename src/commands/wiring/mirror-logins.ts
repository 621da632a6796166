import { createHmac, randomBytes } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { createAccessRecords, type AccessRecords } from '../../cache/access.ts';
import type { Cache, Upstream } from '../../cache/cache.ts';
import type { CachePolicy } from '../../cache/cached.ts';
import type { RecordStore } from '../../cache/record-store.ts';
import { createReferrerMemory } from '../../cache/referrer-memory.ts';
import { createTagMemory } from '../../cache/tag-memory.ts';
import { createExpiringCache } from '../../io/expiring-cache.ts';
import { MIRRORED, withoutCapability } from '../../oci/capability.ts';
import { BLOB_MEDIA_TYPE } from '../../oci/descriptor.ts';
import { parseRepository, type Repository } from '../../oci/reference.ts';
import type { Registry } from '../../oci/registry.ts';
import { noPeers } from '../../peers/peers.ts';
import { routed, type Route } from '../../registry/routed.ts';
import { parseBasic } from '../../server/basic-auth.ts';
import { createPrivateUpstream, type KnownUpstream, type PrivateUpstream } from './private-upstreams.ts';
import type { UpstreamContext } from './upstreams.ts';

export interface MirrorLoginsOptions {
  cache: Cache;
  /** By the first component of a repository. */
  upstreamOf(this: void, name: string): KnownUpstream | undefined;
  /** `upstream`, cached. */
  cachedBy(this: void, upstream: Upstream, cache: Cache, policy: CachePolicy): Registry;
  policyOf(this: void, name: string, upstream: PrivateUpstream): CachePolicy;
  /** The routes of hosted repositories, which do not depend on this login. */
  hosted: Readonly<Record<string, Route>>;
  metrics: UpstreamContext['metrics'];
}

/** How long a proof of access by a login is remembered: long enough for one pull of a manifest and
 *  its blobs. The registry does not notice when a login is revoked. */
const LIFE_MS = 60_000;
const MAX_LOGINS = 500;
const MAX_UPSTREAMS = 8;

/** The registry as it may be read with `login` (mirror mode): upstream is asked with this login,
 *  and its answers prove access for this login alone. Logins and proofs are kept in memory for a
 *  minute, and are not part of shared keys. Blobs are stored once for all logins.
 *  @returns a function of a Basic Authorization; undefined: it has no user and password */
export function createMirrorLogins(options: MirrorLoginsOptions): (login: string) => Registry | undefined {
  const secret = randomBytes(32);
  const registries = createExpiringCache<string, Registry>({ max: MAX_LOGINS, ttl: LIFE_MS });

  return (login) => {
    const given = parseBasic(login);
    if (given === undefined) return undefined;
    const key = createHmac('sha256', secret).update(login).digest('base64');
    const known = registries.get(key);
    if (known !== undefined) return known;
    const made = createPrivateRegistry({ username: given.user, password: given.password }, options);
    registries.set(key, made);
    return made;
  };
}

function createPrivateRegistry(
  login: { username: string; password: string },
  { cache, upstreamOf, cachedBy, policyOf, hosted, metrics }: MirrorLoginsOptions,
): Registry {
  const capability = `by-${randomId()}`;
  const own = privateCache(cache);
  const routes = new LRUCache<string, Route>({ max: MAX_UPSTREAMS });
  function otherwise(name: string): Route | undefined {
    const made = routes.get(name);
    if (made !== undefined) return made;
    const known = upstreamOf(name);
    if (known === undefined) return undefined;
    const upstream = createPrivateUpstream(known, [{ repositories: '', ...login }], metrics);
    const registry = cachedBy(upstream.upstream, own, { ...policyOf(name, upstream), staleFor: 0, capability });
    const route = { registry, defaultNamespace: upstream.config.defaultNamespace };
    routes.set(name, route);
    return route;
  }
  return routed(hosted, { otherwise });
}

/** In the form of an id of a pull secret, so that it is redacted wherever those are. */
function randomId(): string {
  return Array.from(randomBytes(26), (byte) => 'abcdefghijklmnopqrstuvwxyz234567'[byte % 32]).join('');
}

/** `cache` with separate records, which are never written to the store. Other replicas are not
 *  asked, since they do not know the login. */
function privateCache(cache: Cache): Cache {
  const mark: Cache['usage']['mark'] = (repository, digest) => cache.usage.mark(mirrored(repository), digest);
  return {
    ...cache,
    records: noRecords,
    access: alsoKeeping(createAccessRecords(noRecords), cache.access),
    tags: createTagMemory(),
    referrers: createReferrerMemory(),
    usage: { mark },
    peers: noPeers,
  };
}

/** Keeps the manifests from being pruned while they are used. */
function alsoKeeping(access: AccessRecords, shared: AccessRecords): AccessRecords {
  return {
    ...access,
    grant(repository, descriptor) {
      access.grant(repository, descriptor);
      if (descriptor.mediaType !== BLOB_MEDIA_TYPE) shared.grant(mirrored(repository), descriptor);
    },
    restore(repository, descriptor) {
      access.restore(repository, descriptor);
      shared.restore(mirrored(repository), descriptor);
    },
  };
}

function mirrored(repository: Repository): Repository {
  return parseRepository(`${MIRRORED}/${withoutCapability(repository)}`);
}

const nothing = (): void => undefined;
const noRecords: RecordStore = {
  read: () => Promise.resolve(undefined),
  put: nothing,
  mark: nothing,
  remove: nothing,
  pending: () => 0,
  flush: () => Promise.resolve(),
};
