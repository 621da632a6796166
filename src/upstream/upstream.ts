import { createFairQueue } from '../async/fair-queue.ts';
import type { Context, Registry } from '../oci/registry.ts';
import type { RegistryMetrics } from '../telemetry/registry-metrics.ts';
import type { Credentials } from './authorizer.ts';
import { createBlobs } from './blobs.ts';
import type { Limits } from './call.ts';
import { createEndpoint, type Routes } from './endpoint.ts';
import { firstTagPage, getReferrers, listTags } from './lists.ts';
import { getManifest, headManifest } from './manifests.ts';
import { createSources, type Search, type Work } from './mirrors.ts';
import { unlimited, type RateLimit } from './rate-limit.ts';
import { createSource, type Source } from './request.ts';

/** Where a registry is, and how it wants to be asked. */
export interface RegistryAddress {
  /** With a base path before /v2/, or a project behind it, where there is one. */
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
  /** Used when a proxy fails; without it, that fails the request. */
  fallback?: Routes | undefined;
  /** Asked in this order before `url`. */
  mirrors: readonly RegistryAddress[];
  /** Repositories that start so are asked only of mirrors that have credentials for them; by default those of `credentials`. */
  privatePrefixes?: readonly string[];
  /** Of `url`. */
  rateLimit: RateLimit;
  metrics: Pick<RegistryMetrics, 'observeUpstream' | 'received'>;
  /** It is another part of this program: its messages are passed on as they are, and it may be asked without limit. */
  trusted?: boolean;
  limits?: Partial<UpstreamLimits>;
}

export interface UpstreamLimits {
  /** Until headers, over all mirrors and retries. */
  headersMs: number;
  /** The same for blobs: registries that store before they serve take their time for the first byte, and a download outlives the reader that
   *  began it. */
  blobHeadersMs: number;
  /** Without a byte of a body. */
  idleMs: number;
  /** How often `url` itself is asked at most. */
  attempts: number;
  /** How long a mirror that failed is asked only when nothing else answers. */
  deadMirrorMs: number;
}

const DEFAULT_LIMITS: UpstreamLimits = { headersMs: 20_000, blobHeadersMs: 60_000, idleMs: 15_000, deadMirrorMs: 60_000, attempts: 4 };
/** Questions about manifests and lists, of all clients together. Blobs are limited by downloads. */
const QUESTIONS = { running: 128, waiting: 4096, perKey: 512 };

export interface UpstreamReaders {
  /** The upstream behind its mirrors. */
  registry: Registry;
  /** The upstream alone; the same as `registry` where there are no mirrors. */
  origin: Registry;
}

/** A registry elsewhere, with its mirrors: read by the distribution specification 1.1, and by what Docker registries do besides.
 *  @throws OciError of origin `upstream` or `proxy`, whichever failed */
export function upstream(options: UpstreamOptions): UpstreamReaders {
  const { name, metrics, trusted = false } = options;
  const limits = limitsOf(options.limits);
  const origin = openSource(options, true);
  const sources = createSources({
    origin,
    mirrors: options.mirrors.map((mirror) => openSource({ fallback: undefined, ...mirror }, false)),
    privatePrefixes: options.privatePrefixes ?? options.credentials.map(({ repositories }) => repositories),
    attempts: limits.attempts,
    deadMirrorMs: limits.deadMirrorMs,
  });
  const blobs = createBlobs({ name, metrics });

  function openSource(address: RegistryAddress & { fallback?: Routes | undefined }, isOrigin: boolean): Source {
    return createSource({
      name,
      endpoint: createEndpoint({ ...address, idleTimeoutMs: limits.idleMs }),
      isOrigin,
      rateLimit: isOrigin ? options.rateLimit : unlimited,
      queue: trusted ? undefined : createFairQueue(QUESTIONS),
      metrics,
      trusted,
    });
  }

  /** The upstream, asked with its mirrors or without them. */
  function reader(withMirrors: boolean): Registry {
    function ask<T>(repository: string, { signal }: Context, how: Partial<Pick<Search, 'order' | 'headersMs'>>, work: Work<T>): Promise<T> {
      const { order = 'mirrors', headersMs = limits.headersMs } = how;
      return sources.ask({ repository, signal, headersMs, order: withMirrors ? order : 'alone' }, work);
    }
    return {
      resolve: (repository, reference, context) =>
        ask(repository, context, {}, (source, own) => headManifest(source, repository, reference, own)),
      manifest: (repository, reference, context) =>
        ask(repository, context, {}, (source, own) => getManifest(source, repository, reference, withReserve(own, context))),
      // Whether a repository has a blob is for its own registry to say: the answer may open private blobs.
      stat: (repository, digest, context) =>
        ask(repository, context, { order: 'origin', headersMs: limits.blobHeadersMs }, (source, own) =>
          blobs.stat(source, repository, digest, own),
        ),
      blob: (repository, digest, context) =>
        ask(repository, context, { headersMs: limits.blobHeadersMs }, (source, own) =>
          blobs.open(source, { repository, digest, range: context.range }, own),
        ),
      // Mirrors list what they have, which may be a part.
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

  const alone = reader(false);
  return { registry: options.mirrors.length === 0 ? alone : reader(true), origin: alone };
}

function withReserve(limits: Limits, { reserve }: Context): Limits {
  return reserve === undefined ? limits : { ...limits, reserve };
}

function limitsOf(given: Partial<UpstreamLimits> = {}): UpstreamLimits {
  const blobHeadersMs = given.blobHeadersMs ?? given.headersMs ?? DEFAULT_LIMITS.blobHeadersMs;
  return { ...DEFAULT_LIMITS, ...given, blobHeadersMs };
}
