import { arch } from 'node:os';
import type { Fields } from '../../io/untrusted.ts';
import { servedHosts } from '../../oci/image-name.ts';
import type { Registry } from '../../oci/registry.ts';
import { blobKey } from '../../store/keys.ts';
import type { RegistryMetrics } from '../../telemetry/registry-metrics.ts';
import { createWarmer } from '../../upkeep/warm.ts';
import { warmRegularly, type WarmTarget } from '../../upkeep/warm-schedule.ts';
import { imagesOf } from '../../webhook/pod-images.ts';
import { parseWarmName, type WarmRules } from '../cache/warm-name.ts';
import type { RegistryConfig } from '../../config/schema.ts';
import type { Host } from '../command.ts';
import { askCluster } from './pods.ts';
import type { Storage } from './storage.ts';

const ARCHITECTURES: Record<string, string> = { x64: 'amd64', ia32: '386' };

/** The platforms to warm: by default this machine's. */
export function platformsOf(given: readonly string[] | undefined): readonly string[] | 'all' {
  if (given === undefined || given.length === 0) return [`linux/${ARCHITECTURES[arch()] ?? arch()}`];
  return given.includes('all') ? 'all' : given;
}

export interface WarmingContext {
  images: Registry;
  storage: Pick<Storage, 'records' | 'local' | 'remote'>;
  metrics: Pick<RegistryMetrics, 'warmed'>;
}

/** Whether registry.warm names images. */
export function isWarming({ warm }: Pick<RegistryConfig, 'warm'>): boolean {
  return warm.images.length > 0 || warm.cluster;
}

/** Fetches the images of registry.warm by its schedule, until the process is told to stop. */
export async function warmOnSchedule({ config, env, log, stop }: Host, { images, storage, metrics }: WarmingContext): Promise<void> {
  const { warm } = config.registry;
  if (!isWarming(config.registry)) return;
  const rules: WarmRules = { registryHost: config.webhook.registryHost, hosts: servedHosts(config.registry) };
  const store = storage.remote ?? storage.local;

  async function namesOfPods(signal: AbortSignal): Promise<string[]> {
    const pods = await askCluster(env, signal).catch((error: unknown): Fields[] => {
      signal.throwIfAborted();
      log.warn({ event: 'warming-pods-not-listed', error }, 'cannot list the pods of the cluster; fetching only registry.warm.images');
      return [];
    });
    return pods.flatMap((pod) => imagesOf(pod).map(({ image }) => image));
  }

  async function targets(signal: AbortSignal): Promise<WarmTarget[]> {
    const names = new Set([...warm.images, ...(warm.cluster ? await namesOfPods(signal) : [])]);
    const isConfigured = new Set(warm.images);
    return [...names].map((image) => ({ image, located: parseWarmName(image, rules), isConfigured: isConfigured.has(image) }));
  }

  await warmRegularly({
    store: storage.records,
    schedule: warm.schedule,
    targets,
    begin(signal) {
      const one = createWarmer(images, {
        platforms: platformsOf(warm.platforms),
        referrers: warm.referrers,
        isStored: async (digest, signal) => (await store.stat(blobKey(digest), { signal })) !== undefined,
        signal,
      });
      return ({ repository, reference }) => one(repository, reference, () => undefined);
    },
    log,
    metrics,
    stop,
  });
}
