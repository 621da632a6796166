import { ConfigError } from '../../config/load.ts';
import { urlOf } from '../../config/scalars.ts';
import type { RegistryConfig } from '../../config/schema.ts';
import { createTransport } from '../../http/undici-transport.ts';
import { exportImages, type ExportName, type ExportResult, type ImageReader } from '../../layout/export-images.ts';
import { createStoreReader } from '../../layout/store-reader.ts';
import { OCI_INDEX, parseManifest } from '../../oci/descriptor.ts';
import { isDigest } from '../../oci/digest.ts';
import type { Registry } from '../../oci/registry.ts';
import type { Store } from '../../store/store.ts';
import { noRegistryMetrics } from '../../telemetry/registry-metrics.ts';
import { remote } from '../../upstream/remote.ts';
import { servedHosts } from '../../oci/image-name.ts';
import type { Host } from '../command.ts';
import { formatBytes } from '../table.ts';
import { createRepositoryNames } from '../wiring/repository-names.ts';
import { openStore } from '../wiring/storage.ts';
import { createProgress } from './progress.ts';
import { parseWarmName } from './warm-name.ts';

export interface ExportCommandOptions {
  /** Image names, as written by users. */
  images: readonly string[];
  /** A path; `-`: stdout. */
  output: string;
  /** By default all platforms of an index. */
  platforms?: readonly string[];
  /** Signatures, SBOMs and other referrers as well. */
  referrers: boolean;
  /** By default the registry of the configuration on this machine, if it answers. */
  registry?: string;
  json: boolean;
}

const LIMITS = { attempts: 2, headersMs: 60_000, idleMs: 120_000 };
const PROBE_TIMEOUT_MS = 5000;

/** `kube-registry cache export`: writes images into one tar file. 0: all of them are in it.
 *  @throws ConfigError: an image has no upstream, or neither a registry nor a store can be read;
 *  OciError: an image cannot be read; then no file is left */
export async function cacheExport(host: Host, options: ExportCommandOptions): Promise<number> {
  const { config, stop, stdout, stderr } = host;
  const images = options.images.map((image) => parseName(image, host));
  const url = options.registry?.replace(/\/+$/, '') ?? urlOf(config.registry.listen);
  const registry = (await answers(url, stop)) ? remoteRegistry(url) : undefined;
  if (registry === undefined && options.registry !== undefined) throw new ConfigError(`--registry: no registry answers at ${url}`);
  // The configured store belongs to the configured registry; the store of another registry has
  // other images.
  const store = options.registry === undefined ? await openOwnStore(config.registry, registry !== undefined) : undefined;
  const progress = createProgress(stderr);
  const bar = progress.start(options.output, 'bytes');
  try {
    const result = await exportImages({
      images,
      reader: createReader(registry, store),
      output: options.output === '-' ? stdout : options.output,
      platforms: options.platforms === undefined || options.platforms.includes('all') ? 'all' : options.platforms,
      referrers: options.referrers,
      signal: stop,
      progress: bar.set,
    });
    bar.end();
    progress.stop();
    // The archive is the only output of stdout.
    (options.output === '-' ? stderr : stdout).write(
      options.json ? `${JSON.stringify({ ...result, output: options.output }, undefined, 2)}\n` : render(result, options.output),
    );
    return 0;
  } finally {
    progress.stop();
    await store?.close();
  }
}

function parseName(image: string, { config }: Host): ExportName {
  const located = parseWarmName(image, { registryHost: config.webhook.registryHost, hosts: servedHosts(config.registry) });
  const [usual] = located === undefined ? [] : createRepositoryNames(config.registry)(located.repository);
  if (located === undefined || usual === undefined) {
    throw new ConfigError(`found ${image}; accepted: an image that is served, such as nginx:1.27 or ghcr.io/owner/name@sha256:…`);
  }
  const { reference } = located;
  return { name: `${usual}${isDigest(reference) ? '@' : ':'}${reference}`, ...located };
}

/** The running registry resolves the images, and gives the blobs that the store lacks or has no
 *  access record for. All other blobs are read from the store. */
function createReader(registry: Registry | undefined, store: Store | undefined): ImageReader {
  const stored = store === undefined ? undefined : createStoreReader(store);
  return {
    async manifest(repository, reference, signal) {
      if (registry !== undefined) return registry.manifest(repository, reference, { signal });
      if (stored === undefined) throw new ConfigError('neither a registry nor a store can be read');
      return stored.manifest(repository, reference, signal);
    },
    async referrers(repository, subject, signal) {
      if (registry === undefined) return stored?.referrers(repository, subject, signal) ?? [];
      const { index } = await registry.referrers(repository, subject, { signal });
      return parseManifest(index, OCI_INDEX).manifests.map(({ digest }) => digest);
    },
    async blob(repository, descriptor, signal) {
      if (registry === undefined) {
        if (stored === undefined) throw new ConfigError('neither a registry nor a store can be read');
        return stored.blob(repository, descriptor, signal);
      }
      const found = await stored?.find(repository, descriptor.digest, signal);
      if (found?.size === descriptor.size) return found.body;
      await found?.body[Symbol.asyncIterator]().return?.();
      return (await registry.blob(repository, descriptor.digest, { signal })).body;
    },
  };
}

function remoteRegistry(url: string): Registry {
  return remote({
    name: 'registry',
    url,
    transport: createTransport({ proxy: 'direct' }),
    metrics: noRegistryMetrics,
    limits: LIMITS,
  });
}

async function answers(url: string, stop: AbortSignal): Promise<boolean> {
  try {
    const response = await fetch(`${url}/v2/`, { signal: AbortSignal.any([stop, AbortSignal.timeout(PROBE_TIMEOUT_MS)]) });
    await response.body?.cancel();
    return response.ok;
  } catch {
    stop.throwIfAborted();
    return false;
  }
}

/** @returns undefined: the store cannot be reached from here, but a registry answers, so it is not
 *  needed */
async function openOwnStore(config: RegistryConfig, hasRegistry: boolean): Promise<Store | undefined> {
  try {
    return await openStore(config);
  } catch (error) {
    if (hasRegistry && error instanceof ConfigError) return undefined;
    throw error;
  }
}

function render({ images, manifests, referrers, blobs, bytes }: ExportResult, output: string): string {
  return `wrote ${images} images (${manifests} manifests${referrers === 0 ? '' : `, ${referrers} of them referrers`}, ${blobs} blobs, ${formatBytes(bytes)}) to ${output}\n`;
}
