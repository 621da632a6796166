import { join } from 'node:path';
import { captureLog } from '../../test/support/log.ts';
import { temporaryDirectory } from '../../test/support/temporary.ts';
import { createCache, type Cache } from '../cache/cache.ts';
import { cached, type CachePolicy } from '../cache/cached.ts';
import { openStorage } from '../commands/wiring/storage.ts';
import { parseConfig } from '../config/load.ts';
import type { Registry } from '../oci/registry.ts';
import { noPeers } from '../peers/peers.ts';
import { noRegistryMetrics } from '../telemetry/registry-metrics.ts';
import { unlimited } from '../upstream/rate-limit.ts';

export interface OpenCache extends AsyncDisposable {
  cache: Cache;
  log: Awaited<ReturnType<typeof captureLog>>['log'];
  /** An upstream without mirrors, served from the cache. */
  serve(name: string, upstream: Registry, policy?: Partial<CachePolicy>): Registry;
}

/** A cache over a temporary directory. */
export async function openCache(): Promise<OpenCache> {
  await using stack = new AsyncDisposableStack();
  const { path } = stack.use(await temporaryDirectory());
  const { registry: config } = parseConfig({
    registry: { storage: { filesystem: { directory: path } }, local: { directory: join(path, 'local') } },
  });
  const { log } = await captureLog();
  const storage = await openStorage(config, { log, metrics: noRegistryMetrics });
  stack.defer(() => storage.close(AbortSignal.timeout(10_000)));
  const cache = await createCache({ storage, spoolDirectory: storage.spoolDirectory, peers: noPeers, metrics: noRegistryMetrics, log });
  stack.defer(() => cache.records.flush(AbortSignal.timeout(10_000)));
  stack.defer(() => cache.downloads.close(AbortSignal.timeout(10_000)));
  stack.defer(() => cache.lateProofs.close());
  const usual = { tagTtl: 60_000, staleFor: 60_000, negativeTtl: 0, connections: 1, onDeleted: 'forget', rateLimit: unlimited } as const;
  const owned = stack.move();
  return {
    cache,
    log,
    serve(name, upstream, policy = {}) {
      return cached({ registry: upstream, origin: upstream }, cache, { ...usual, credentialed: () => false, ...policy, name });
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}
