import { createFairQueue } from '../async/fair-queue.ts';
import type { Context, Registry } from '../oci/registry.ts';
import type { RegistryMetrics } from '../telemetry/registry-metrics.ts';
import type { Credentials } from './authorizer.ts';
import { createBlobs, type Blobs } from './blobs.ts';
import type { Limits } from './call.ts';
import { createEndpoint } from './endpoint.ts';
import type { Routes } from './sender.ts';
import { firstTagPage, getReferrers, listTags } from './lists.ts';
import { getManifest, headManifest } from './manifests.ts';
import { createSources, type Search, type Sources, type Work } from './mirrors.ts';
import { unlimited, type RateLimit } from './rate-limit.ts';
import { createSource, type Source } from './request.ts';

/** The address of a registry, and how to access it. */
export interface RegistryAddress {
  /** With the base path before /v2/ and the project after it, if there are any. */
  url: string;
  routes: Routes;
  credentials: readonly Credentials[];
  /** Hosts of token services that may see the credentials, besides the host of `url`. */
  authHosts: readonly string[];
  /** Sent with every request to `url` itself. */
  headers?: Readonly<Record<string, string>> | undefined;
  /** Sent as `?ns=`. */
  ns?: string | undefined;
}

export interface UpstreamOptions extends RegistryAddress {
  /** As the configuration names it. */
  name: string;
  /** Used when a proxy fails; without it, the request then fails. */
  fallback?: Routes | undefined;
  /** Asked in this order before `url`. */
  mirrors: readonly RegistryAddress[];
  /** Repositories with these prefixes are only requested from mirrors that have credentials for
   *  them; by default those of `credentials`. */
  privatePrefixes?: readonly string[];
  /** The rate limit of `url`. */
  rateLimit: RateLimit;
  metrics: Pick<RegistryMetrics, 'observeUpstream' | 'received'>;
  /** The upstream is another part of this program: its messages are passed on unchanged, and
   *  requests to it are not limited. */
  trusted?: boolean;
  limits?: Partial<UpstreamLimits>;
}

export interface UpstreamLimits {
  /** Until headers, over all mirrors and retries. */
  headersMs: number;
  /** The same for blobs: longer, because registries that store a blob before they serve it are slow
   *  to send its first byte, and a download outlives the reader that started it. */
  blobHeadersMs: number;
  /** How long a body may stay silent. */
  idleMs: number;
  /** How often `url` itself is asked at most. */
  attempts: number;
  /** How long a mirror that failed is asked only when nothing else answers. */
  deadMirrorMs: number;
}

const DEFAULT_LIMITS: UpstreamLimits = { headersMs: 20_000, blobHeadersMs: 60_000, idleMs: 15_000, deadMirrorMs: 60_000, attempts: 4 };
/** Requests of all clients that wait for their headers at once. */
const QUESTIONS = { running: 128, waiting: 4096, perKey: 512 };

export interface UpstreamReaders {
  /** The upstream with its mirrors. */
  registry: Registry;
  /** The upstream without its mirrors; the same as `registry` if there are no mirrors. */
  origin: Registry;
}

/** A remote registry with its mirrors, read by the distribution specification 1.1 and the
 *  additional behaviour of Docker registries.
 *  @throws OciError of origin `upstream` or `proxy`, whichever failed */
export function upstream(options: UpstreamOptions): UpstreamReaders {
  const limits = limitsOf(options.limits);
  const origin = openSource(options, options, { isOrigin: true, idleMs: limits.idleMs });
  const sources = createSources({
    origin,
    mirrors: options.mirrors.map((mirror) =>
      openSource(options, { fallback: undefined, ...mirror }, { isOrigin: false, idleMs: limits.idleMs }),
    ),
    privatePrefixes: options.privatePrefixes ?? options.credentials.map(({ repositories }) => repositories),
    attempts: limits.attempts,
    deadMirrorMs: limits.deadMirrorMs,
  });
  const reading = { sources, blobs: createBlobs(options), limits };

  const alone = reader(reading, false);
  return { registry: options.mirrors.length === 0 ? alone : reader(reading, true), origin: alone };
}

interface Reading {
  sources: Sources;
  blobs: Blobs;
  limits: UpstreamLimits;
}

/** The upstream, asked with its mirrors or without them. */
function reader({ sources, blobs, limits }: Reading, withMirrors: boolean): Registry {
  function ask<T>(repository: string, { signal }: Context, how: Partial<Pick<Search, 'order' | 'headersMs'>>, work: Work<T>): Promise<T> {
    const { order = 'mirrors', headersMs = limits.headersMs } = how;
    return sources.ask({ repository, signal, headersMs, order: withMirrors ? order : 'alone' }, work);
  }
  return {
    resolve: (repository, reference, context) =>
      ask(repository, context, {}, (source, own) => headManifest(source, repository, reference, own)),
    manifest: (repository, reference, context) =>
      ask(repository, context, {}, (source, own) => getManifest(source, repository, reference, withReserve(own, context))),
    // Only the registry itself may say whether a repository has a blob: the answer may open
    // private blobs.
    stat: (repository, digest, context) =>
      ask(repository, context, { order: 'origin', headersMs: limits.blobHeadersMs }, (source, own) =>
        blobs.stat(source, repository, digest, own),
      ),
    blob: (repository, digest, context) =>
      ask(repository, context, { headersMs: limits.blobHeadersMs }, (source, own) =>
        blobs.open(source, { repository, digest, range: context.range }, own),
      ),
    // Mirrors list only the content that they have, which may be a part.
    tags: (repository, { last, ...context }) =>
      listTags(
        {
          first: (repository, last) => ask(repository, context, { order: 'origin' }, firstTagPage(repository, last)),
          again: (source, work) => sources.insist(source, { signal: context.signal, headersMs: limits.headersMs }, work),
        },
        repository,
        last,
      ),
    referrers: (repository, digest, context) =>
      ask(repository, context, { order: 'origin' }, (source, own) =>
        getReferrers(source, { repository, digest, artifactType: context.artifactType }, own),
      ),
  };
}

function openSource(
  { name, metrics, trusted = false, rateLimit }: UpstreamOptions,
  address: RegistryAddress & { fallback?: Routes | undefined },
  { isOrigin, idleMs }: { isOrigin: boolean; idleMs: number },
): Source {
  return createSource({
    name,
    endpoint: createEndpoint({ ...address, idleTimeoutMs: idleMs }),
    isOrigin,
    rateLimit: isOrigin ? rateLimit : unlimited,
    queue: trusted ? undefined : createFairQueue(QUESTIONS),
    metrics,
    trusted,
  });
}

function withReserve(limits: Limits, { reserve }: Context): Limits {
  return reserve === undefined ? limits : { ...limits, reserve };
}

function limitsOf(given: Partial<UpstreamLimits> = {}): UpstreamLimits {
  const blobHeadersMs = given.blobHeadersMs ?? given.headersMs ?? DEFAULT_LIMITS.blobHeadersMs;
  return { ...DEFAULT_LIMITS, ...given, blobHeadersMs };
}
