import type { RegistryConfig } from '../../config/schema.ts';
import { agrees, createDigestHash, type Digest } from '../../oci/digest.ts';
import { OciError } from '../../oci/error.ts';
import { parseRepository, type Repository } from '../../oci/reference.ts';
import type { Registry } from '../../oci/registry.ts';
import { blobKey } from '../../store/keys.ts';
import { bytesSource, type Store, type StoreContext, type StoreSource } from '../../store/store.ts';
import type { Log } from '../../telemetry/log.ts';
import { noRegistryMetrics } from '../../telemetry/registry-metrics.ts';
import { formatBytes, renderTable } from '../table.ts';
import { verify, type Damage, type VerifyResult } from '../../upkeep/verify.ts';
import type { Host } from '../command.ts';
import { createProgress } from './progress.ts';
import { openStore } from '../wiring/storage.ts';
import { createServedUpstreams } from '../wiring/served-upstreams.ts';

export interface VerifyCommandOptions {
  repair: boolean;
  parallel: number;
  json: boolean;
}

/** `kube-registry cache verify`: reads and checks all stored blobs. 1: something is damaged, or
 *  could not be repaired.
 *  @throws OciError UNAVAILABLE */
export async function cacheVerify({ config, log, stop, stdout, stderr }: Host, options: VerifyCommandOptions): Promise<number> {
  const store = await openStore(config.registry);
  const progress = createProgress(stderr);
  const bar = progress.start('reading everything', 'bytes');
  try {
    const result = await verify(store, {
      signal: stop,
      parallel: options.parallel,
      progress: bar.set,
      ...(options.repair ? { refetch: createRefetch(config.registry, { store, log, signal: stop }) } : {}),
    });
    bar.end();
    progress.stop();
    stdout.write(options.json ? `${JSON.stringify(plain(result), undefined, 2)}\n` : render(result));
    return result.damages.some(({ outcome }) => outcome !== 'repaired') ? 1 : 0;
  } finally {
    progress.stop();
    await store.close();
  }
}

/** Downloads directly from the upstreams, with the registry's proxies and credentials. The running
 *  registry would not do: its local tier may have blobs that the store has lost. */
function createRefetch(
  config: RegistryConfig,
  { store, log, signal }: { store: Store; log: Log; signal: AbortSignal },
): (damage: Damage) => Promise<void> {
  const upstreams = createServedUpstreams(config, { counts: noRegistryMetrics, log });

  return async ({ digest, isManifest, repositories }) => {
    let failure: unknown = new OciError('NAME_UNKNOWN', 'no repository is known to have it');
    for (const full of repositories) {
      const slash = full.indexOf('/');
      const registry = upstreams.find(full.slice(0, slash))?.upstream.registry;
      if (registry === undefined) continue;
      const repository = parseRepository(full.slice(slash + 1));
      try {
        const source = isManifest
          ? bytesSource((await registry.manifest(repository, digest, { signal })).bytes)
          : await blobSource(registry, { repository, digest, signal });
        await store.write(blobKey(digest), source, { signal });
        return;
      } catch (error) {
        signal.throwIfAborted();
        failure = error;
      }
    }
    throw failure;
  };
}

async function blobSource(
  registry: Registry,
  { repository, digest, signal }: { repository: Repository; digest: Digest; signal: AbortSignal },
): Promise<StoreSource> {
  const { size } = await registry.stat(repository, digest, { signal });
  async function* verified({ signal }: StoreContext): AsyncGenerator<Uint8Array> {
    const hash = createDigestHash(digest);
    for await (const chunk of (await registry.blob(repository, digest, { signal })).body) {
      hash.update(chunk);
      yield chunk;
    }
    if (!agrees(hash, digest)) throw new OciError('UNAVAILABLE', `the bytes from upstream do not match ${digest}`, { origin: 'upstream' });
  }
  return { size, open: (context) => Promise.resolve(verified(context)) };
}

function plain({ damages, ...counts }: VerifyResult) {
  return {
    ...counts,
    damages: damages.map(({ error, ...damage }) => ({ ...damage, ...(error === undefined ? {} : { error: messageOf(error) }) })),
  };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function render({ blobs, bytes, damages }: VerifyResult): string {
  const rows = damages.map(({ digest, kind, outcome, repositories, error }) => [
    digest,
    kind === 'wrong' ? 'wrong bytes' : 'missing',
    error === undefined ? outcome : `${outcome}: ${messageOf(error)}`,
    repositories.join(' '),
  ]);
  const table = rows.length === 0 ? '' : `${renderTable(['DIGEST', 'WHAT', 'OUTCOME', 'REPOSITORIES'], rows)}\n`;
  const bad = damages.filter(({ outcome }) => outcome !== 'repaired').length;
  const verdict =
    damages.length === 0 ? 'all of them are right' : `${damages.length} are wrong or missing, ${damages.length - bad} of them repaired`;
  return `${table}read ${blobs} blobs, ${formatBytes(bytes)}: ${verdict}\n`;
}
