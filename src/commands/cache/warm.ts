import { readFile } from 'node:fs/promises';
import { text } from 'node:stream/consumers';
import { ConfigError } from '../../config/load.ts';
import { urlOf } from '../../config/scalars.ts';
import type { RegistryConfig } from '../../config/schema.ts';
import { isOciError } from '../../oci/error.ts';
import { printable, printableLines } from '../../io/printable.ts';
import { redactCapabilities } from '../../oci/capability.ts';
import { servedHosts } from '../../oci/image-name.ts';
import { createTransport } from '../../http/undici-transport.ts';
import { blobKey } from '../../store/keys.ts';
import type { Store } from '../../store/store.ts';
import { noRegistryMetrics } from '../../telemetry/registry-metrics.ts';
import { formatBytes } from '../table.ts';
import { inParallel } from '../../async/parallel.ts';
import { createWarmer, type Warmed } from '../../upkeep/warm.ts';
import type { Fields } from '../../io/untrusted.ts';
import { imagesOf } from '../../webhook/pod-images.ts';
import type { Host } from '../command.ts';
import { createProgress, type Progress } from './progress.ts';
import { openStore } from '../wiring/storage.ts';
import { platformsOf } from '../wiring/warm.ts';
import { remote } from '../../upstream/remote.ts';
import { parseWarmName } from './warm-name.ts';
import { askCluster, readPods } from '../wiring/pods.ts';

export interface WarmCommandOptions {
  /** Image names, as written by users. */
  images: readonly string[];
  /** A file with one image per line; `-`: stdin. */
  file?: string;
  /** Warm all images that the pods of the cluster use. */
  cluster: boolean;
  /** The same, from the output of `kubectl get pods -A -o json`; `-`: stdin. */
  pods?: string;
  /** By default the registry of the configuration on this machine. */
  registry?: string;
  /** By default the platform of this machine. */
  platforms?: readonly string[];
  /** How many images to pull at once. */
  parallel: number;
  json: boolean;
}

/** `skipped`: an image of a pod that this registry does not serve. */
interface Outcome extends Partial<Warmed> {
  image: string;
  outcome: 'warm' | 'skipped' | 'failed';
  error?: string;
}

const LIMITS = { attempts: 2, headersMs: 60_000, idleMs: 120_000 };

/** `kube-registry cache warm`: pulls images through a running registry, so that they are cached
 *  when nodes need them. 1: some could not be pulled.
 *  @throws ConfigError: no registry answers, no image is named; OciError: the pods of the cluster
 *  cannot be listed */
export async function cacheWarm(host: Host, options: WarmCommandOptions): Promise<number> {
  const { config, stop, stdout, stderr } = host;
  const url = options.registry?.replace(/\/+$/, '') ?? urlOf(config.registry.listen);
  const wanted = await imagesFor(host, options);
  if (wanted.size === 0) throw new ConfigError('found no image; accepted: images, --file, --cluster or --pods');
  await requireRegistry(url, stop);
  // The configured store says nothing about another registry.
  const store = options.registry === undefined ? await openOwnStore(config.registry) : undefined;
  const platforms = platformsOf(options.platforms);
  const warm = createWarmer(
    remote({ name: 'registry', url, transport: createTransport({ proxy: 'direct' }), metrics: noRegistryMetrics, limits: LIMITS }),
    {
      platforms,
      referrers: config.registry.warm.referrers,
      isStored: (digest, signal) => isIn(store, blobKey(digest), signal),
      signal: stop,
    },
  );
  const rules = { registryHost: config.webhook.registryHost, hosts: servedHosts(config.registry) };
  const progress = createProgress(stderr);
  const platformNames = typeof platforms === 'string' ? platforms : platforms.join(', ');
  if (!options.json) stderr.write(`pulling ${wanted.size} images for ${platformNames} through ${url}\n`);
  const outcomes: Outcome[] = [];
  try {
    await inParallel(wanted, options.parallel, async ([given, { asked }]) => {
      const name = parseWarmName(given, rules);
      const image = redactCapabilities(given);
      if (name === undefined) {
        outcomes.push({ image, outcome: asked ? 'failed' : 'skipped', error: 'no upstream serves this host, or it is not an image name' });
        return;
      }
      const own = await warmOne(image, { progress, work: (advance) => warm(name.repository, name.reference, advance) });
      stop.throwIfAborted();
      outcomes.push(own);
    });
  } finally {
    progress.stop();
    await store?.close();
  }
  stdout.write(printableLines(options.json ? `${JSON.stringify(outcomes, undefined, 2)}\n` : render(outcomes)));
  return outcomes.some(({ outcome }) => outcome === 'failed') ? 1 : 0;
}

interface Job {
  progress: Progress;
  work(this: void, advance: (bytes: number, total: number) => void): Promise<Warmed>;
}

async function warmOne(image: string, { progress, work }: Job): Promise<Outcome> {
  const bar = progress.start(image, 'bytes');
  try {
    const warmed = await work(bar.set);
    bar.end(`warm    ${printable(image)}  ${describe(warmed)}`);
    return { image, outcome: 'warm', ...warmed };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    bar.end(printable(`failed  ${image}  ${message}`));
    return { image, outcome: 'failed', error: message };
  }
}

function describe({ bytes, blobs, known, referrersError }: Warmed): string {
  const exception = referrersError === undefined ? '' : printable(`, but not its referrers: ${referrersError}`);
  return `${formatBytes(bytes)} in ${blobs - known} blobs${known === 0 ? '' : `, ${known} were there`}${exception}`;
}

function render(outcomes: readonly Outcome[]): string {
  const of = (outcome: Outcome['outcome']) => outcomes.filter((own) => own.outcome === outcome);
  const failures = of('failed').map(({ image, error }) => `${printable(`failed: ${image}: ${error}`)}\n`);
  const skipped = of('skipped').map(({ image }) => `${printable(`not of this registry: ${image}`)}\n`);
  const bytes = outcomes.reduce((sum, own) => sum + (own.bytes ?? 0), 0);
  return `${[...skipped, ...failures].join('')}${of('warm').length} of ${outcomes.length - skipped.length} images are warm, ${formatBytes(bytes)} were read\n`;
}

/** The images to pull, each once; `asked`: those requested by name. */
async function imagesFor(
  { stdin, env, stop }: Host,
  { images, file, cluster, pods }: WarmCommandOptions,
): Promise<Map<string, { asked: boolean }>> {
  const wanted = new Map<string, { asked: boolean }>();
  const running: Fields[] = [
    ...(cluster ? await podsOfCluster(env, stop) : []),
    ...(pods === undefined ? [] : await podsOfFile(pods, stdin)),
  ];
  for (const pod of running) for (const { image } of imagesOf(pod)) wanted.set(image, { asked: false });
  const listed = file === undefined ? '' : file === '-' ? await text(stdin) : await readList(file);
  const lines = listed.split('\n').map((line) => line.replace(/#.*$/, '').trim());
  for (const image of [...images, ...lines]) if (image !== '') wanted.set(image, { asked: true });
  return wanted;
}

/** If the store does not answer, the blob is read, which also stores it. */
async function isIn(store: Store | undefined, key: string, signal: AbortSignal): Promise<boolean> {
  try {
    return store !== undefined && (await store.stat(key, { signal })) !== undefined;
  } catch (error) {
    if (signal.aborted || !isOciError(error, 'UNAVAILABLE')) throw error;
    return false;
  }
}

async function podsOfCluster(env: NodeJS.ProcessEnv, stop: AbortSignal): Promise<Fields[]> {
  try {
    return await askCluster(env, stop);
  } catch (cause) {
    stop.throwIfAborted();
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new ConfigError(
      `--cluster: found no cluster that can be reached from here (${why}); accepted: a kubeconfig, or a service account that may list pods. ` +
        'Or use kubectl: kubectl get pods -A -o json | … cache warm --pods -',
      { cause },
    );
  }
}

async function podsOfFile(file: string, stdin: NodeJS.ReadStream): Promise<Fields[]> {
  try {
    return await readPods(file, stdin);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new ConfigError(`--pods: found input that cannot be read (${why}); accepted: what kubectl get pods -A -o json prints`, { cause });
  }
}

async function readList(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (cause) {
    throw new ConfigError(
      `--file: found ${file}, which cannot be read (${(cause as NodeJS.ErrnoException).code}); accepted: a file of image names`,
      { cause },
    );
  }
}

async function requireRegistry(url: string, stop: AbortSignal): Promise<void> {
  try {
    const response = await fetch(`${url}/v2/`, { signal: AbortSignal.any([stop, AbortSignal.timeout(10_000)]) });
    await response.body?.cancel();
    if (response.ok) return;
  } catch (cause) {
    stop.throwIfAborted();
    throw new ConfigError(`no registry answers at ${url}: run this command where the registry runs, or set its URL with --registry`, {
      cause,
    });
  }
  throw new ConfigError(`the server at ${url} is not a registry that allows pulls without a login: set the URL of one with --registry`);
}

/** Undefined: the store cannot be reached from here. Then all blobs are read. */
async function openOwnStore(config: RegistryConfig): Promise<Store | undefined> {
  try {
    return await openStore(config);
  } catch (error) {
    if (error instanceof ConfigError) return undefined;
    throw error;
  }
}
