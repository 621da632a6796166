import type { Download } from '../download/download.ts';
import { createSourceList, type BlobSource } from '../download/source.ts';
import { readWithoutSpool } from '../download/without-spool.ts';
import { discardBody, mapBody } from '../io/body.ts';
import { createDigestHash, type Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import type { ByteRange } from '../oci/range.ts';
import type { Repository } from '../oci/reference.ts';
import type { Blob, Registry } from '../oci/registry.ts';
import type { Log } from '../telemetry/log.ts';
import { isNodeAddress, type AgentOffer, type PlaceKind } from './agreement.ts';
import type { Places, Redirection } from './places.ts';
import type { Answer, Questions } from './questions.ts';
import type { Sharing } from './sharing.ts';

export interface NearestOptions {
  questions: Questions;
  places: Places;
  /** Undefined: this agent shares nothing, and reads from S3 and the registry alone. */
  sharing: Sharing | undefined;
  /** The upstreams themselves, for a download whose registry dies. */
  direct: Registry | undefined;
  log: Log;
  metrics: NearestMetrics;
}

export interface NearestMetrics {
  /** Bytes of a blob that came from a place. */
  received(this: void, from: PlaceKind | 'upstream', bytes: number): void;
  /** A blob is read through so many others. */
  depth(this: void, depth: number): void;
  /** A place failed, and the blob continued from the registry or another place. */
  left(this: void, from: PlaceKind): void;
}

/** One blob on its way to this node. */
interface Reading {
  repository: Repository;
  digest: Digest;
  /** Where bytes came from: addresses of nodes, and names of other places. */
  sources: Set<string>;
  failed: AgentOffer['failed'];
}

/** `registry`, whose blobs are read from the place that it names: itself, S3 or another node (promise 24). A place that does not answer
 *  in time or breaks off costs a second at most: the blob continues from another one, and from the registry in the end. What comes
 *  from elsewhere is hashed, and its end withheld until the hash agrees. Parts of blobs are always read from the registry: a part
 *  cannot be verified.
 *  @throws OciError as `registry` does; the body's error is `corrupt` if what came has another digest */
export function nearest(registry: Registry, { questions, places, sharing, direct, log, metrics }: NearestOptions): Registry {
  function offer(failed?: AgentOffer['failed']): AgentOffer {
    return { node: sharing?.node(), s3: places.reachesS3(), away: places.away(), failed };
  }

  function counted(blob: Blob, from: PlaceKind | 'upstream', onError?: (error: unknown) => void): Blob {
    let bytes = 0;
    const body = mapBody(blob.body, {
      onChunk: (chunk) => void (bytes += chunk.length),
      onError: (error) => (onError?.(error), error),
      onClose: () => metrics.received(from, bytes),
    });
    return { ...blob, body };
  }

  async function openPlace(reading: Reading, redirection: Redirection, range: ByteRange | undefined, signal: AbortSignal): Promise<Blob> {
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
      return counted(blob, kind, () => failedBy('cut'));
    } catch (error) {
      failedBy('unreachable');
      throw error;
    }
  }

  function placeSource(reading: Reading, redirection: Redirection): BlobSource {
    return { name: 'replica', open: (range, signal) => openPlace(reading, redirection, range, signal) };
  }

  /** Asks the registry once more for a place, which knows then that the first one has failed. */
  function secondSource(reading: Reading): BlobSource {
    return {
      name: 'replica',
      async open(range, signal) {
        const { repository, digest } = reading;
        const answer = await questions.ask({ repository, digest, range, offer: offer(reading.failed) }, signal);
        if (answer === undefined) throw new OciError('UNAVAILABLE', 'the registry names no other place', { origin: 'upstream' });
        if (answer.redirection !== undefined) return openPlace(reading, answer.redirection, range, signal);
        reading.sources.add('registry');
        return counted(answer.blob, 'registry');
      },
    };
  }

  function registrySource(reading: Reading, first?: Blob): BlobSource {
    let opened = first;
    return {
      name: 'upstream',
      async open(range, signal) {
        reading.sources.add('registry');
        if (opened !== undefined && range === undefined) {
          const blob = opened;
          opened = undefined;
          return counted(blob, 'registry');
        }
        const { repository, digest } = reading;
        return counted(await registry.blob(repository, digest, range === undefined ? { signal } : { signal, range }), 'registry');
      },
    };
  }

  /** The upstream itself, while the registry does not answer. */
  function directSource({ repository, digest, sources }: Reading, registry: Registry): BlobSource {
    return {
      name: 'upstream',
      async open(range, signal) {
        sources.add('upstream');
        return counted(await registry.blob(repository, digest, range === undefined ? { signal } : { signal, range }), 'upstream');
      },
    };
  }

  function sourcesOf(reading: Reading, { blob, redirection }: Answer): BlobSource[] {
    const last = direct === undefined ? [] : [directSource(reading, direct)];
    if (redirection === undefined) return [registrySource(reading, blob), ...last];
    const again = redirection.place.kind === 'node' ? [secondSource(reading)] : [];
    return [placeSource(reading, redirection), ...again, registrySource(reading), ...last];
  }

  /** Tells the registry how a download has ended. */
  async function tell(reading: Reading, download: Download, started: number): Promise<void> {
    const { outcome } = await download.result;
    const node = sharing?.node();
    if (node === undefined) return;
    const [only, ...more] = reading.sources;
    const from = more.length === 0 && only !== undefined && isNodeAddress(only) ? only : undefined;
    const isWrong = outcome === 'corrupt' && from !== undefined;
    const told = outcome === 'whole' ? 'whole' : isWrong ? 'wrong' : 'failed';
    questions.report({ node, digest: reading.digest, outcome: told, from, milliseconds: performance.now() - started });
  }

  /** Downloads a blob to this node's disk, from where its own client and other nodes read it. Undefined: it has ended already. */
  async function share(reading: Reading, answer: Answer, { downloads }: Sharing, signal: AbortSignal): Promise<Blob | undefined> {
    const { digest, repository } = reading;
    const running = downloads.running(digest);
    if (running !== undefined && (await running.isJoinable(signal))) {
      const blob = await running.read(undefined, signal);
      if (blob !== undefined) {
        if (answer.blob !== undefined) await discardBody(answer.blob.body);
        return blob;
      }
    }
    const download = downloads.start(digest, {
      sources: sourcesOf(reading, answer),
      repository,
      upstream: 'registry',
      connections: 1,
      expectedSize: answer.place?.size,
      start: 0,
      isLastResort: false,
      continues: false,
    });
    void tell(reading, download, performance.now());
    return download.read(undefined, signal);
  }

  function stream(reading: Reading, answer: Answer, size: number, signal: AbortSignal): Blob {
    const { digest } = reading;
    const sources = createSourceList({ digest, sources: sourcesOf(reading, answer), expectedSize: size, log });
    const hash = createDigestHash(digest);
    const body = readWithoutSpool({ digest, sources, maxSize: size, size, from: 0, to: size, hash, hashed: 0 }, signal);
    return { digest, size, range: undefined, body: mapBody(body, {}) };
  }

  return {
    ...registry,
    async blob(repository, digest, context) {
      const { range, signal } = context;
      if (range !== undefined) return registry.blob(repository, digest, context);
      // A download outlives the client that started it, and so must the registry's answer.
      const own = new AbortController();
      const leave = (): void => own.abort(signal.reason);
      signal.throwIfAborted();
      signal.addEventListener('abort', leave, { once: true });
      const answer = await questions.ask({ repository, digest, offer: offer() }, own.signal);
      if (answer === undefined) return registry.blob(repository, digest, context);
      const { place, redirection, blob } = answer;
      if (redirection === undefined && (place === undefined || sharing?.node() === undefined)) return counted(blob, 'registry');
      const reading: Reading = { repository, digest, sources: new Set(), failed: undefined };
      metrics.depth(place?.depth ?? 1);
      if (sharing?.node() === undefined) return stream(reading, answer, answer.place?.size ?? 0, signal);
      signal.removeEventListener('abort', leave);
      try {
        const shared = await share(reading, answer, sharing, signal);
        if (shared !== undefined) return shared;
      } catch (error) {
        signal.throwIfAborted();
        log.warn(
          { event: 'blob-not-shared', digest, error },
          'a blob cannot be shared with other nodes; reading it from the registry alone',
        );
      }
      return registry.blob(repository, digest, context);
    },
  };
}
