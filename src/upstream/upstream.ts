import { setTimeout as delay } from 'node:timers/promises';
import { BLOB_MEDIA_TYPE, MANIFEST_MEDIA_TYPES, MAX_MANIFEST_SIZE, OCI_INDEX, parseManifest, type Descriptor } from '../oci/descriptor.ts';
import { digestOf, isDigest, splitDigest, type Digest } from '../oci/digest.ts';
import { isAbsent, isOciError, OciError, type OciErrorCode } from '../oci/error.ts';
import { formatRange, parseContentRange } from '../oci/range.ts';
import { isTag, type Reference, type Repository, type Tag } from '../oci/reference.ts';
import type { Body, Context, Manifest, Registry } from '../oci/registry.ts';
import { mapBody, readAll } from '../io/body.ts';
import type { RegistryMetrics } from '../telemetry/registry-metrics.ts';
import type { Allowance } from './rate-limit.ts';
import { createEndpoint, type Ask, type Endpoint, type Reply, type Ways } from './endpoint.ts';
import { parseTold, refusal } from './errors.ts';
import type { Credentials } from './authorizer.ts';
import { backoff } from '../async/backoff.ts';

export interface UpstreamOptions extends Ways {
  /** As the configuration names it. */
  name: string;
  url: string;
  /** Used when a proxy fails; absent: that fails the request. */
  fallback?: Ways | undefined;
  /** Asked in this order before `url`, without credentials. */
  mirrors: readonly ({ url: string } & Ways)[];
  credentials: readonly Credentials[];
  authHosts: readonly string[];
  /** Sent to `url` with every request. */
  headers?: Readonly<Record<string, string>>;
  /** Of `url`; its mirrors have limits of their own. */
  allowance: Allowance;
  metrics: Pick<RegistryMetrics, 'observeUpstream' | 'received'>;
  /** It is one of this program: what it says of a failure is passed on. */
  trusted?: boolean;
  limits?: Partial<UpstreamLimits>;
}

/** Milliseconds. */
export interface UpstreamLimits {
  /** Until headers, over all mirrors and retries. */
  headers: number;
  /** Without a byte of a body. */
  idle: number;
  /** How often url itself is asked at most; a number, not ms. */
  attempts: number;
  /** How long a mirror that failed is left out. */
  deadMirror: number;
}

const DEFAULT_LIMITS: UpstreamLimits = { headers: 20_000, idle: 15_000, deadMirror: 60_000, attempts: 4 };
const MAX_TAG_PAGES = 1000;
/** Bytes of an error's body. */
const MAX_TOLD = 64 * 1024;
/** Of all pages of a list together, in bytes. */
const MAX_LIST_SIZE = 32 * 1024 * 1024;

/** A registry elsewhere, with its mirrors: read by the distribution specification 1.1 and by what Docker registries do beside it.
 *  @throws OciError origin `upstream` or `proxy`: who failed */
export function upstream(options: UpstreamOptions): Registry {
  const { name, metrics, allowance } = options;
  const limits = { ...DEFAULT_LIMITS, ...options.limits };
  const origin = createEndpoint({ ...options, idleTimeout: limits.idle });
  const mirrors = options.mirrors.map((mirror) => ({
    endpoint: createEndpoint({ ...mirror, credentials: [], authHosts: [], idleTimeout: limits.idle }),
    deadUntil: 0,
  }));

  /** Asks the mirrors in order, and then upstream itself, whose word alone is final about what there is not. */
  async function anywhere<T>(context: Context, work: (endpoint: Endpoint, limits: AskLimits) => Promise<T>): Promise<T> {
    const { signal } = context;
    const started = Date.now();
    for (const mirror of context.mirrors === false ? [] : mirrors) {
      if (mirror.deadUntil > Date.now()) continue;
      const asking = { signal, deadline: AbortSignal.timeout(Math.floor(limits.headers / (mirrors.length + 2))) };
      try {
        return await work(mirror.endpoint, asking).catch((error: unknown) => {
          if (!wasHungUp(error)) throw error;
          return work(mirror.endpoint, asking);
        });
      } catch (error) {
        signal.throwIfAborted();
        if (isOciError(error, 'RANGE_INVALID')) throw error;
        if (isOciError(error, 'UNAVAILABLE', 'TOOMANYREQUESTS')) mirror.deadUntil = Date.now() + limits.deadMirror;
      }
    }
    const deadline = AbortSignal.timeout(Math.max(1000, limits.headers - (Date.now() - started)));
    for (let attempt = 1; ; attempt++) {
      try {
        return await work(origin, { signal, deadline });
      } catch (error) {
        signal.throwIfAborted();
        const again = isOciError(error, 'UNAVAILABLE') && (error.retryAfter ?? 0) <= 2;
        if (!again || attempt >= limits.attempts || deadline.aborted) throw error;
        const pause = Math.max(1000 * (error.retryAfter ?? 0), backoff(attempt, { baseMs: 150, jitter: 'half' }));
        await delay(pause, undefined, { signal: AbortSignal.any([signal, deadline]) }).catch(() => undefined); // told below
        signal.throwIfAborted();
        if (deadline.aborted) throw error;
      }
    }
  }

  /** One request whose answer is one of `expected`; every other is an error. */
  async function ask(endpoint: Endpoint, request: Request, asking: AskLimits): Promise<Reply> {
    const started = performance.now();
    const seconds = () => (performance.now() - started) / 1000;
    try {
      const reply = await endpoint.ask(request, asking);
      if (request.counted === true) allowance.told(reply.headers);
      if (!(request.expected ?? [200]).includes(reply.status)) {
        throw refusal(endpoint.host, reply, { ...request, told: await toldBy(reply, endpoint.host) });
      }
      const encoding = reply.headers['content-encoding'];
      if (encoding !== undefined && encoding !== 'identity') {
        reply.discard();
        throw new OciError('UNAVAILABLE', `${endpoint.host} compresses what it was asked to send as it is`, { origin: 'upstream' });
      }
      metrics.observeUpstream(name, 'ok', seconds());
      return reply;
    } catch (error) {
      if (!asking.signal.aborted) metrics.observeUpstream(name, outcomeOf(error), seconds());
      throw error;
    }
  }

  /** `ask` for a manifest: what upstreams count. */
  async function askManifest(endpoint: Endpoint, request: ManifestAsk, asking: AskLimits): Promise<Reply> {
    const { method, repository, reference, expected = [200] } = request;
    const path = `/v2/${repository}/manifests/${reference}`;
    const own = endpoint === origin;
    try {
      return await ask(
        endpoint,
        { method, path, repository, headers: ACCEPT_MANIFESTS, absent: 'MANIFEST_UNKNOWN', expected, counted: own },
        asking,
      );
    } catch (error) {
      if (own && isOciError(error, 'TOOMANYREQUESTS')) allowance.refused(error.retryAfter);
      throw error;
    }
  }

  /** What the body of a refusal says (distribution specification, "Error Codes"), where that is to be passed on. */
  async function toldBy(reply: Reply, host: string): Promise<string | undefined> {
    const { headers } = reply;
    if (options.trusted !== true || mediaTypeOf(reply) !== 'application/json' || Number(headers['content-length'] ?? 0) > MAX_TOLD) {
      reply.discard();
      return undefined;
    }
    return parseTold(await read(reply, MAX_TOLD, host));
  }

  async function read(reply: Reply, most: number, host: string): Promise<Uint8Array> {
    const bytes = await readAll(reply.body, most);
    if (bytes === undefined) {
      throw new OciError('MANIFEST_INVALID', `${host} sends more than ${most} bytes, the most that such a document may have`, {
        origin: 'upstream',
      });
    }
    metrics.received(name, bytes.length);
    return bytes;
  }

  async function getManifest(endpoint: Endpoint, repository: Repository, reference: Reference, asking: AskLimits): Promise<Manifest> {
    const reply = await askManifest(endpoint, { method: 'GET', repository, reference }, asking);
    const bytes = await read(reply, MAX_MANIFEST_SIZE, endpoint.host);
    const told = reply.headers['docker-content-digest'];
    const expected = isDigest(reference) ? reference : typeof told === 'string' && isDigest(told) ? told : undefined;
    const digest = digestOf(bytes, expected === undefined ? 'sha256' : splitDigest(expected).algorithm);
    if (expected !== undefined && digest !== expected) {
      throw new OciError('MANIFEST_INVALID', `what ${endpoint.host} sent for ${reference} is not ${expected}`, { origin: 'upstream' });
    }
    const header = mediaTypeOf(reply);
    const content = parseManifest(bytes, header);
    const mediaType = MANIFEST_MEDIA_TYPES.includes(content.mediaType) ? content.mediaType : header;
    requireManifestType(mediaType, endpoint.host);
    return { descriptor: { mediaType, digest, size: bytes.length }, bytes, stale: false };
  }

  async function headManifest(endpoint: Endpoint, repository: Repository, reference: Reference, asking: AskLimits): Promise<Descriptor> {
    const reply = await askManifest(endpoint, { method: 'HEAD', repository, reference, expected: [200, 405, 501] }, asking);
    reply.discard();
    const digest = reply.headers['docker-content-digest'];
    const size = Number(reply.headers['content-length'] ?? Number.NaN);
    const mediaType = mediaTypeOf(reply);
    const told = reply.status === 200 && typeof digest === 'string' && isDigest(digest) && (digest === reference || isTag(reference));
    if (told && size > 0 && MANIFEST_MEDIA_TYPES.includes(mediaType)) return { mediaType, digest, size };
    return (await getManifest(endpoint, repository, reference, asking)).descriptor;
  }

  return {
    resolve: (repository, reference, context) =>
      anywhere(context, (endpoint, asking) => headManifest(endpoint, repository, reference, asking)),
    manifest: (repository, reference, context) =>
      anywhere(context, (endpoint, asking) => getManifest(endpoint, repository, reference, asking)),

    stat: (repository, digest, context) =>
      anywhere(context, async (endpoint, asking) => {
        const request = { path: `/v2/${repository}/blobs/${digest}`, repository, absent: 'BLOB_UNKNOWN' as const };
        const reply = await ask(endpoint, { ...request, method: 'HEAD', headers: {}, expected: [200, 405, 501] }, asking);
        reply.discard();
        const size = Number(reply.headers['content-length'] ?? Number.NaN);
        if (reply.status === 200 && Number.isSafeInteger(size)) return { digest, mediaType: BLOB_MEDIA_TYPE, size };
        const got = await ask(endpoint, { ...request, method: 'GET', headers: { range: 'bytes=0-0' }, expected: [200, 206] }, asking);
        got.discard();
        const total =
          parseContentRange(String(got.headers['content-range'] ?? ''))?.size ?? Number(got.headers['content-length'] ?? Number.NaN);
        if (!Number.isSafeInteger(total))
          throw new OciError('UNAVAILABLE', `${endpoint.host} does not tell the size of ${digest}`, { origin: 'upstream' });
        return { digest, mediaType: BLOB_MEDIA_TYPE, size: total };
      }),

    blob: (repository, digest, context) =>
      anywhere(context, async (endpoint, asking) => {
        const { range } = context;
        const headers: Record<string, string> = range === undefined ? {} : { range: formatRange(range) };
        const request = {
          method: 'GET' as const,
          path: `/v2/${repository}/blobs/${digest}`,
          repository,
          headers,
          absent: 'BLOB_UNKNOWN' as const,
        };
        const reply = await ask(endpoint, { ...request, expected: range === undefined ? [200] : [200, 206] }, asking);
        const length = Number(reply.headers['content-length'] ?? Number.NaN);
        const known = Number.isSafeInteger(length) ? length : undefined;
        if (reply.status === 200)
          return {
            digest,
            size: known,
            range: undefined,
            body: counted(reply.body, known, endpoint.host),
          };
        const part = parseContentRange(String(reply.headers['content-range'] ?? ''));
        const wrong =
          part === undefined || (range !== undefined && 'start' in range && part.start !== range.start) || part.end < part.start;
        if (wrong) {
          reply.discard();
          throw new OciError('UNAVAILABLE', `${endpoint.host} sends another range than it was asked for`, { origin: 'upstream' });
        }
        const { start, end, size } = part;
        return {
          digest,
          size,
          range: { start, end },
          body: counted(reply.body, end - start + 1, endpoint.host),
        };
      }),

    async *tags(repository, context) {
      let path: string | undefined = `/v2/${repository}/tags/list${context.last === undefined ? '' : `?last=${context.last}`}`;
      for (let page = 0, room = MAX_LIST_SIZE; path !== undefined; page++) {
        if (page === MAX_TAG_PAGES) throw new OciError('UNAVAILABLE', `${origin.host} lists tags without end`, { origin: 'upstream' });
        const at: string = path;
        const { tags, next, size } = await anywhere(context, (endpoint, asking) =>
          getTags(endpoint, { repository, path: at, room }, asking),
        );
        yield* tags;
        room -= size;
        path = next === at ? undefined : next;
      }
    },

    referrers: (repository, digest, context) =>
      anywhere(context, async (endpoint, asking) => {
        const { artifactType } = context;
        const query = artifactType === undefined ? '' : `?artifactType=${encodeURIComponent(artifactType)}`;
        const request = {
          method: 'GET' as const,
          path: `/v2/${repository}/referrers/${digest}${query}`,
          repository,
          headers: { accept: OCI_INDEX },
        };
        const reply = await ask(endpoint, { ...request, absent: 'NAME_UNKNOWN', expected: [200, 400, 404, 405, 501] }, asking);
        if (reply.status === 200 && mediaTypeOf(reply) === OCI_INDEX) {
          const index = await read(reply, MAX_MANIFEST_SIZE, endpoint.host);
          return filterReferrers(
            index,
            reply.headers['oci-filters-applied'] === undefined ? artifactType : undefined,
            artifactType !== undefined,
          );
        }
        reply.discard();
        return filterReferrers(await referrersTag(endpoint, repository, digest, asking), artifactType, artifactType !== undefined);
      }),
  };

  /** What clients push as a tag where there is no referrers API (distribution specification, "Referrers Tag Schema"). */
  async function referrersTag(endpoint: Endpoint, repository: Repository, digest: Digest, asking: AskLimits): Promise<Uint8Array> {
    try {
      return (await getManifest(endpoint, repository, digest.replace(':', '-') as Tag, asking)).bytes;
    } catch (error) {
      if (isAbsent(error) && endpoint === origin) return EMPTY_INDEX; // a mirror may just not have them
      throw error;
    }
  }

  /** One page of a list, of at most `room` bytes. */
  async function getTags(
    endpoint: Endpoint,
    { repository, path, room }: { repository: Repository; path: string; room: number },
    asking: AskLimits,
  ): Promise<{ tags: Tag[]; next: string | undefined; size: number }> {
    const reply = await ask(
      endpoint,
      { method: 'GET', path, repository, headers: { accept: 'application/json' }, absent: 'NAME_UNKNOWN' },
      asking,
    );
    const bytes = await read(reply, room, endpoint.host);
    const link = /<([^>]+)>\s*;\s*rel="?next"?/i.exec(String(reply.headers['link'] ?? ''))?.[1];
    const next = link !== undefined && URL.canParse(link, `http://host${path}`) ? new URL(link, `http://host${path}`) : undefined;
    return {
      tags: parseTags(bytes, endpoint.host),
      next: next?.pathname.startsWith('/v2/') ? next.pathname + next.search : undefined,
      size: bytes.length,
    };
  }

  /** Counts the bytes of `body`, and fails it if it ends before `length`. */
  function counted(body: Body, length: number | undefined, host: string): Body {
    let received = 0;
    return mapBody(body, {
      onChunk: (chunk) => void (received += chunk.length),
      onEnd() {
        if (length === undefined || received === length) return;
        throw new OciError('UNAVAILABLE', `${host} sent ${received} bytes instead of ${length}`, { origin: 'upstream' });
      },
      onClose: () => metrics.received(name, received),
    });
  }
}

interface Request extends Ask {
  /** What a 404 means. */
  absent: OciErrorCode;
  /** Statuses; 200 alone by default. */
  expected?: number[];
  /** Its answer tells what upstream still allows. */
  counted?: boolean;
}

interface ManifestAsk {
  method: 'GET' | 'HEAD';
  repository: Repository;
  reference: Reference;
  /** Statuses; 200 alone by default. */
  expected?: number[];
}

interface AskLimits {
  signal: AbortSignal;
  deadline: AbortSignal;
}

const ACCEPT_MANIFESTS = { accept: MANIFEST_MEDIA_TYPES.join(', ') };
const EMPTY_INDEX = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [] }));

function mediaTypeOf(reply: Reply): string {
  return (
    String(reply.headers['content-type'] ?? '')
      .split(';', 1)[0]
      ?.trim()
      .toLowerCase() ?? ''
  );
}

function requireManifestType(mediaType: string, host: string): void {
  if (MANIFEST_MEDIA_TYPES.includes(mediaType)) return;
  const hint = mediaType.startsWith('application/vnd.docker.distribution.manifest.v1')
    ? 'a Docker schema 1 manifest, which containerd no longer pulls either'
    : `${mediaType || 'no media type'}, which is no manifest`;
  throw new OciError('MANIFEST_INVALID', `${host} sends ${hint}`, { origin: 'upstream' });
}

/** The other end closed the connection instead of answering: as it does with one that was idle for too long. */
function wasHungUp(error: unknown): boolean {
  const { code } = ((error as Error).cause ?? {}) as NodeJS.ErrnoException;
  return isOciError(error, 'UNAVAILABLE') && ['ECONNRESET', 'EPIPE', 'UND_ERR_SOCKET'].includes(code ?? '');
}

function outcomeOf(error: unknown): 'absent' | 'refused' | 'limited' | 'failed' | 'proxy' {
  if (isAbsent(error)) return 'absent';
  if (isOciError(error, 'UNAUTHORIZED', 'DENIED')) return 'refused';
  if (isOciError(error, 'TOOMANYREQUESTS')) return 'limited';
  return isOciError(error) && error.origin === 'proxy' ? 'proxy' : 'failed';
}

function parseTags(bytes: Uint8Array, host: string): Tag[] {
  let document: unknown;
  try {
    document = JSON.parse(Buffer.from(bytes).toString());
  } catch (cause) {
    throw new OciError('UNAVAILABLE', `${host} sends a tag list that is not JSON`, { cause, origin: 'upstream' });
  }
  const tags = (document as { tags?: unknown } | null)?.tags ?? [];
  return Array.isArray(tags) ? tags.filter((tag): tag is Tag => typeof tag === 'string' && isTag(tag)) : [];
}

/** Keeps what has `artifactType` when it is given. @throws OciError MANIFEST_INVALID: not an index */
function filterReferrers(
  bytes: Uint8Array,
  artifactType: string | undefined,
  filtersApplied: boolean,
): { index: Uint8Array; filtersApplied: boolean } {
  parseManifest(bytes, OCI_INDEX);
  if (artifactType === undefined) return { index: bytes, filtersApplied };
  const document = JSON.parse(Buffer.from(bytes).toString()) as { manifests?: { artifactType?: string }[] };
  const manifests = (document.manifests ?? []).filter((entry) => entry.artifactType === artifactType);
  return { index: Buffer.from(JSON.stringify({ ...document, manifests })), filtersApplied };
}
