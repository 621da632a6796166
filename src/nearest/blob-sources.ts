import type { BlobSource } from '../download/source.ts';
import { countBytes, mapBody } from '../io/body.ts';
import type { Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import type { ByteRange } from '../oci/range.ts';
import type { Repository } from '../oci/reference.ts';
import type { Blob, Registry } from '../oci/registry.ts';
import type { AgentOffer, PlaceKind } from './agreement.ts';
import type { Places, Redirection } from './places.ts';
import type { Answer, Questions } from './questions.ts';
import type { Sharing } from './sharing.ts';

/** All sources that an agent may read a blob from. */
export interface Origins {
  registry: Registry;
  /** The upstreams themselves, for a download whose registry stops answering. */
  direct: Registry | undefined;
  questions: Questions;
  places: Places;
  /** Undefined: this agent does not share, and reads only from S3 and the registry. */
  sharing: Sharing | undefined;
  metrics: Pick<NearestMetrics, 'received' | 'left'>;
}

export interface NearestMetrics {
  /** Counts bytes of a blob that came from a source. */
  received(this: void, from: PlaceKind | 'upstream', bytes: number): void;
  /** Reports over how many hops a blob is read. */
  depth(this: void, depth: number): void;
  /** A source failed, and the blob continued from the registry or another source. */
  left(this: void, from: PlaceKind): void;
}

/** The download of one blob to this node. */
export interface Reading {
  repository: Repository;
  digest: Digest;
  /** The sources of the bytes: addresses of nodes, and names of other sources. */
  sources: Set<string>;
  failed: AgentOffer['failed'];
}

/** The headers that this agent sends to the registry with a request for a blob. */
export function offerOf({ sharing, places }: Pick<Origins, 'sharing' | 'places'>, failed?: AgentOffer['failed']): AgentOffer {
  return { node: sharing?.node(), s3: places.reachesS3(), away: places.away(), failed };
}

/** `blob`, whose bytes are counted as received from `from`. */
export function counted(
  blob: Blob,
  from: PlaceKind | 'upstream',
  { received, onError }: Pick<NearestMetrics, 'received'> & { onError?(this: void): void },
): Blob {
  const body = mapBody(blob.body, { onError: (error) => (onError?.(), error) });
  return { ...blob, body: countBytes(body, (bytes) => received(from, bytes)) };
}

/** The sources of a blob after the registry's response, best first: the source that it names,
 *  another one if that was a node, the registry itself, and the upstream. */
export function sourcesOf(reading: Reading, { blob, redirection }: Answer, origins: Origins): BlobSource[] {
  const { registry, direct, metrics } = origins;
  const last = direct === undefined ? [] : [registrySource(reading, direct, { name: 'upstream', metrics })];
  if (redirection === undefined) return [registrySource(reading, registry, { name: 'registry', metrics, first: blob }), ...last];
  const again = redirection.place.kind === 'node' ? [secondPlaceSource(reading, origins)] : [];
  return [placeSource(reading, redirection, origins), ...again, registrySource(reading, registry, { name: 'registry', metrics }), ...last];
}

function placeSource(reading: Reading, redirection: Redirection, origins: Origins): BlobSource {
  return { name: 'replica', open: (range, signal) => openPlace(reading, { redirection, range, signal }, origins) };
}

/** Asks the registry for another source, and reports that the first one has failed. */
function secondPlaceSource(reading: Reading, origins: Origins): BlobSource {
  const { questions, metrics } = origins;
  return {
    name: 'replica',
    async open(range, signal) {
      const { repository, digest } = reading;
      const answer = await questions.ask({ repository, digest, range, offer: offerOf(origins, reading.failed) }, signal);
      if (answer === undefined) throw new OciError('UNAVAILABLE', 'the registry names no other source', { origin: 'upstream' });
      const { redirection } = answer;
      if (redirection !== undefined) return openPlace(reading, { redirection, range, signal }, origins);
      reading.sources.add('registry');
      return counted(answer.blob, 'registry', metrics);
    },
  };
}

/** The registry, or the upstream itself while the registry does not answer. `first`: the registry's
 *  first response, which has already arrived. */
function registrySource(
  { repository, digest, sources }: Reading,
  registry: Registry,
  { name, metrics, first }: { name: 'registry' | 'upstream'; metrics: Origins['metrics']; first?: Blob | undefined },
): BlobSource {
  let opened = first;
  return {
    name: 'upstream',
    async open(range, signal) {
      sources.add(name);
      const known = range === undefined ? opened : undefined;
      if (known !== undefined) opened = undefined;
      const blob = known ?? (await registry.blob(repository, digest, range === undefined ? { signal } : { signal, range }));
      return counted(blob, name, metrics);
    },
  };
}

async function openPlace(
  reading: Reading,
  { redirection, range, signal }: { redirection: Redirection; range: ByteRange | undefined; signal: AbortSignal },
  { places, metrics }: Pick<Origins, 'places' | 'metrics'>,
): Promise<Blob> {
  const { kind } = redirection.place;
  const address = redirection.url.host;
  const failedBy = (how: 'unreachable' | 'cut') => {
    if (signal.aborted) return;
    metrics.left(kind);
    if (kind === 'node') reading.failed = { address, how };
  };
  try {
    const blob = await places.open(redirection, { digest: reading.digest, range }, signal);
    reading.sources.add(kind === 'node' ? address : kind);
    return counted(blob, kind, { received: metrics.received, onError: () => failedBy('cut') });
  } catch (error) {
    failedBy('unreachable');
    throw error;
  }
}
