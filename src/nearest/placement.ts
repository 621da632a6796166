import type { IncomingHttpHeaders } from 'node:http';
import type { Transport } from '../http/transport.ts';
import type { Digest } from '../oci/digest.ts';
import { isOciError } from '../oci/error.ts';
import type { Repository } from '../oci/reference.ts';
import type { Context, Registry } from '../oci/registry.ts';
import {
  AGENT_HEADER,
  formatPlace,
  parseOffer,
  parsePlace,
  parseReport,
  PLACE_HEADER,
  REPORT_HEADER,
  type AgentOffer,
  type PlaceKind,
} from './agreement.ts';
import type { Tracker } from './tracker.ts';

/** A presigned URL of a blob in S3, and the object's size in bytes. Undefined: S3 does not have it,
 *  or does not answer. */
export type FindInS3 = (digest: Digest, signal: AbortSignal) => Promise<{ url: string; size: number } | undefined>;

export interface PlacementOptions {
  /** Proves that a repository has a blob. Its `stat` asks no mirrors, whose answers prove
   *  nothing. */
  proofs: Registry;
  tracker: Tracker;
  s3: { find: FindInS3; clients: 'all' | 'agents' } | undefined;
  /** The replica that tracks a blob: its URL, and the headers that mark a request from a replica.
   *  Undefined: this one. */
  ownerOf(this: void, digest: Digest): { url: string; headers: Record<string, string> } | undefined;
  transport: Transport;
  /** An agent was sent to a source. */
  placed(this: void, place: PlaceKind): void;
}

export interface BlobRequest {
  request: { headers: IncomingHttpHeaders };
  head: boolean;
  context: Context;
}

/** The source from which a client is to read a blob. `location` undefined: from this registry. */
export interface Placed {
  location: string | undefined;
  /** Headers of the response. */
  headers: readonly string[];
}

export interface Placement {
  /** For clients. Undefined: the registry sends the blob itself.
   *  @throws OciError as `proofs.stat` does: a URL is returned only to clients that may pull the
   *  blob under this name */
  forClient(this: void, repository: Repository, digest: Digest, asked: BlobRequest): Promise<Placed | undefined>;
  /** For other replicas, which ask by HEAD on behalf of their agents. */
  forReplica(this: void, repository: Repository, digest: Digest, asked: BlobRequest): Promise<Placed | undefined>;
  /** Reads an agent's report, if a request has one. */
  receiveReport(this: void, headers: IncomingHttpHeaders, isFromReplica: boolean): void;
}

/** Smaller blobs are sent by the registry: a redirect would take longer than the blob. */
const MIN_BYTES = 2 ** 20;
/** The time limit for the replica that tracks a blob to name a source, in ms. */
const OWNER_TIMEOUT_MS = 1000;
/** How long a confirmation of S3 is valid for redirects, in ms. */
const CONFIRMED_MS = 1000;

export function createPlacement(options: PlacementOptions): Placement {
  const { tracker, s3, ownerOf, transport } = options;

  return {
    async forClient(repository, digest, asked) {
      if (asked.head) return undefined;
      const offer = parseOffer(asked.request.headers[AGENT_HEADER]);
      if (offer !== undefined) {
        const found = await forAgent(options, { repository, digest }, { offer, asked });
        if (found !== undefined) return found;
      }
      return s3?.clients === 'all' ? forAnyClient(options, { repository, digest }, { find: s3.find, context: asked.context }) : undefined;
    },

    async forReplica(repository, digest, asked) {
      const offer = asked.head ? parseOffer(asked.request.headers[AGENT_HEADER]) : undefined;
      if (offer?.node === undefined) return undefined;
      const size = await provenSize(options, { repository, digest }, asked.context);
      if (size === undefined) return undefined;
      const { url, depth } = await tracker.assign({ ...offer, node: offer.node }, { digest, size });
      return url === undefined ? undefined : { location: url, headers: [PLACE_HEADER, formatPlace({ kind: 'node', depth, size })] };
    },

    receiveReport(headers, isFromReplica) {
      const report = parseReport(headers[REPORT_HEADER]);
      if (report === undefined) return;
      const owner = isFromReplica ? undefined : ownerOf(report.digest);
      if (owner === undefined) return tracker.report(report);
      const forwarded = { ...owner.headers, [REPORT_HEADER]: String(headers[REPORT_HEADER]) };
      const signal = AbortSignal.timeout(OWNER_TIMEOUT_MS);
      transport.request({ origin: owner.url, path: '/v2/', method: 'GET', headers: forwarded, signal }).then(
        ({ abandon }) => abandon('short'),
        () => undefined, // the tracker forgets it after a while
      );
    },
  };
}

/** The blob that a client requests. */
interface Wanted {
  repository: Repository;
  digest: Digest;
}

/** Redirects a client of any kind to S3. */
async function forAnyClient(
  options: PlacementOptions,
  wanted: Wanted,
  { find, context }: { find: FindInS3; context: Context },
): Promise<Placed | undefined> {
  const { digest } = wanted;
  const found = await find(digest, context.signal);
  if (found === undefined) return undefined;
  const confirmed = performance.now();
  const size = await provenSize(options, wanted, context);
  // An object of another size is damaged. The registry repairs it when it next reads it.
  if (size === undefined || (size > 0 && found.size !== size)) return undefined;
  // The upstream may have taken its time to answer, and S3 may be down by now.
  const url = performance.now() - confirmed < CONFIRMED_MS ? found.url : (await find(digest, context.signal))?.url;
  return url === undefined ? undefined : { location: url, headers: [] };
}

async function forAgent(
  options: PlacementOptions,
  wanted: Wanted,
  { offer, asked }: { offer: AgentOffer; asked: BlobRequest },
): Promise<Placed | undefined> {
  const { s3, placed } = options;
  const size = await provenSize(options, wanted, asked.context);
  if (size === undefined || size < MIN_BYTES) return undefined;
  const answer = (kind: PlaceKind, location: string | undefined, depth: number): Placed => {
    placed(kind);
    return { location, headers: [PLACE_HEADER, formatPlace({ kind, depth, size })] };
  };
  const node = await nodeFor(options, { ...wanted, size }, { offer, asked });
  if (node?.url !== undefined) return answer('node', node.url, node.depth);
  const found = offer.s3 ? await s3?.find(wanted.digest, asked.context.signal) : undefined;
  return found?.size === size ? answer('s3', found.url, 1) : answer('registry', undefined, 1);
}

async function nodeFor(
  options: PlacementOptions,
  wanted: Wanted & { size: number },
  { offer, asked }: { offer: AgentOffer; asked: BlobRequest },
): Promise<{ url: string | undefined; depth: number } | undefined> {
  const { node } = offer;
  if (node === undefined) return undefined;
  const owner = options.ownerOf(wanted.digest);
  return owner === undefined ? options.tracker.assign({ ...offer, node }, wanted) : askOwner(options, { ...wanted, owner }, asked);
}

/** Asks the replica that tracks the blob. Undefined: it names no node, or does not answer in
 *  time. */
async function askOwner(
  { transport }: PlacementOptions,
  { owner, repository, digest }: Wanted & { owner: NonNullable<ReturnType<PlacementOptions['ownerOf']>> },
  { request, context }: BlobRequest,
): Promise<{ url: string; depth: number } | undefined> {
  const headers = { ...owner.headers, [AGENT_HEADER]: String(request.headers[AGENT_HEADER]) };
  const signal = AbortSignal.any([context.signal, AbortSignal.timeout(OWNER_TIMEOUT_MS)]);
  try {
    const response = await transport.request({
      origin: owner.url,
      path: `/v2/${repository}/blobs/${digest}`,
      method: 'HEAD',
      headers,
      signal,
    });
    response.abandon('short');
    const { location } = response.headers;
    if (response.statusCode !== 307 || typeof location !== 'string') return undefined;
    return { url: location, depth: parsePlace(response.headers[PLACE_HEADER])?.depth ?? 1 };
  } catch {
    context.signal.throwIfAborted();
    return undefined; // this replica serves the blob itself; peers.ts logs the failure
  }
}

/** Undefined: access cannot be proved now; a mirror may have the blob. */
async function provenSize({ proofs }: PlacementOptions, { repository, digest }: Wanted, context: Context): Promise<number | undefined> {
  try {
    return (await proofs.stat(repository, digest, context)).size;
  } catch (error) {
    if (isOciError(error, 'UNAVAILABLE')) return undefined;
    throw error;
  }
}
