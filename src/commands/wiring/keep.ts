import type { Config } from '../../config/schema.ts';
import { fieldsOf, itemsOf, textOf, type Fields } from '../../io/untrusted.ts';
import { OciError } from '../../oci/error.ts';
import { servedHosts } from '../../oci/image-name.ts';
import { createKeep, type Keep, type KeepOptions } from '../../upkeep/keep.ts';
import { imagesOf } from '../../webhook/pod-images.ts';
import { parseWarmName, type WarmRules } from '../cache/warm-name.ts';
import { askCluster } from './pods.ts';
import { readPins } from '../../upkeep/pins.ts';
import type { Store } from '../../store/store.ts';
import { createRepositoryNames } from './repository-names.ts';

export interface KeepContext {
  env: NodeJS.ProcessEnv;
  /** The store that contains the pins. */
  store: Store;
}

/** The images that pruning must keep, by registry.cache.keep, registry.cache.keepInUse,
 *  registry.hosted and the pins of the console.
 *  @returns a function that throws OciError UNAVAILABLE: the pods cannot be listed, so nothing may
 *  be removed */
export function createKeepOf({ registry, webhook }: Config, { env, store }: KeepContext): (signal: AbortSignal) => Promise<Keep> {
  const { cache, hosted } = registry;
  const rules: WarmRules = { registryHost: webhook.registryHost, hosts: servedHosts(registry) };
  const namesOf = createRepositoryNames(registry);

  return async (signal) => {
    const inUse = cache.keepInUse ? imagesInUse(await podsOfCluster(env, signal), rules) : [];
    return createKeep({ hosted: Object.keys(hosted), pinned: cache.keep, pins: await readPins(store, signal), inUse, namesOf });
  };
}

async function podsOfCluster(env: NodeJS.ProcessEnv, signal: AbortSignal): Promise<Fields[]> {
  try {
    return await askCluster(env, signal);
  } catch (cause) {
    signal.throwIfAborted();
    throw new OciError('UNAVAILABLE', 'cannot list the pods of the cluster (registry.cache.keepInUse), so nothing is removed', {
      cause,
    });
  }
}

/** The images that pods name, and the digests that their containers run: the tag may have moved
 *  since. */
function imagesInUse(pods: readonly Fields[], rules: WarmRules): KeepOptions['inUse'] {
  const names = new Set<string>();
  for (const pod of pods) {
    for (const { image } of imagesOf(pod)) names.add(image);
    const status = fieldsOf(pod['status']);
    for (const list of ['initContainerStatuses', 'containerStatuses', 'ephemeralContainerStatuses']) {
      for (const { imageID } of itemsOf(status[list])) names.add((textOf(imageID) ?? '').replace(/^docker-pullable:\/\//, ''));
    }
  }
  return [...names].flatMap((name) => {
    const located = parseWarmName(name, rules);
    return located === undefined ? [] : [located];
  });
}
