import type { RegistryConfig } from '../../config/schema.ts';
import type { ActionsOptions } from '../../console/handlers/actions.ts';
import type { RulesOptions } from '../../console/handlers/rules.ts';
import { redactCapabilities } from '../../oci/capability.ts';
import { OciError } from '../../oci/error.ts';
import { parseRepository, type Reference, type Repository } from '../../oci/reference.ts';
import type { Registry } from '../../oci/registry.ts';
import { checkImage } from '../../policy/check.ts';
import { blobKey } from '../../store/keys.ts';
import type { Store } from '../../store/store.ts';
import { takeLease } from '../../upkeep/lease.ts';
import { prune, type PruneResult } from '../../upkeep/prune.ts';
import { readTag } from '../../upkeep/tags.ts';
import { createWarmer } from '../../upkeep/warm.ts';
import type { Host } from '../command.ts';
import type { ImagesInside } from './images-inside.ts';
import { createKeepOf } from './keep.ts';
import { pruneLimits } from './prune-limits.ts';
import type { Storage } from './storage.ts';
import { platformsOf } from './warm.ts';

export interface ActionsContext {
  images: Registry;
  inside: ImagesInside;
  storage: Storage;
}

type ConsoleActions = Pick<ActionsOptions, 'warm' | 'prune' | 'readTag' | 'deleteTag'> & Pick<RulesOptions, 'check'>;

/** How many images of a pruning run are listed. */
const MAX_LISTED = 1000;

/** The actions of the console, carried out like those of the registry and its commands. */
export function createConsoleActions(host: Host, { images, inside, storage }: ActionsContext): ConsoleActions {
  const { registry } = host.config;
  const store = storage.remote ?? storage.local;

  return {
    async warm({ repository, reference, platforms }, advance, signal) {
      const warm = createWarmer(images, {
        platforms: platformsOf(platforms.length === 0 ? registry.warm.platforms : platforms),
        referrers: registry.warm.referrers,
        isStored: async (digest, signal) => (await store.stat(blobKey(digest), { signal })) !== undefined,
        signal,
      });
      await warm(repository, reference, (bytes, total) => advance('bytes', bytes, total));
    },

    prune: (asked) => pruneNow(host, storage, asked),
    readTag: async (name, signal) => (await readTag(store, name, { signal }))?.digest,
    deleteTag: ({ repository, tag }, signal) => inside.deleteTag(repository, tag, signal),

    check: (repository, reference, how) => check({ images, inside, store, registry }, { repository, reference }, how),
  };
}

async function pruneNow(
  { config, env }: Host,
  storage: Storage,
  { dryRun, advance, signal }: Parameters<ConsoleActions['prune']>[0],
): ReturnType<ConsoleActions['prune']> {
  const { registry } = config;
  const turn = dryRun ? undefined : await takeLease(storage.records, { signal });
  if (turn !== undefined && 'holder' in turn) throw new OciError('UNAVAILABLE', `${turn.holder} is pruning now; try again when it is done`);
  let finished = false;
  try {
    const result = await prune(storage.records, {
      dryRun,
      limits: pruneLimits(registry),
      maxShare: registry.cache.maxPruneShare,
      keep: createKeepOf(config, { env, store: storage.remote ?? storage.local }),
      signal: turn === undefined ? signal : AbortSignal.any([signal, turn.lease.signal]),
      progress: advance,
    });
    finished = true;
    return describe(result);
  } finally {
    await turn?.lease.release(finished);
  }
}

function check(
  { images, inside, store, registry }: Pick<ActionsContext, 'images' | 'inside'> & { store: Store; registry: RegistryConfig },
  { repository, reference }: { repository: Repository; reference: Reference },
  { ask, signal }: Parameters<ConsoleActions['check']>[2],
): ReturnType<ConsoleActions['check']> {
  const slash = repository.indexOf('/');
  const upstream = inside.upstreamOf(repository.slice(0, slash));
  const askUpstream = async (signal: AbortSignal) => {
    if (upstream === undefined) return images.resolve(repository, reference, { signal }); // a hosted repository
    return upstream.registry.resolve(parseRepository(repository.slice(slash + 1)), reference, { signal });
  };
  return checkImage(repository, reference, {
    policy: inside.policy,
    store,
    tagTtl: upstream?.tagTtl ?? registry.cache.tagTtl,
    askUpstream: ask ? askUpstream : undefined,
    signal,
  });
}

function describe({ images, blobs, bytes, records, kept }: PruneResult): Awaited<ReturnType<ActionsOptions['prune']>> {
  return {
    images: images
      .slice(0, MAX_LISTED)
      .map(({ names, lastUse, because }) => ({ names: names.map(redactCapabilities), lastUsed: new Date(lastUse).toISOString(), because })),
    imageCount: images.length,
    blobs,
    bytes,
    records,
    kept,
  };
}
