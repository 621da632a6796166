import type { Download } from '../download/download.ts';
import { createSourceList } from '../download/source.ts';
import { readWithoutSpool } from '../download/without-spool.ts';
import { discardBody, mapBody } from '../io/body.ts';
import { createDigestHash } from '../oci/digest.ts';
import type { Blob, Registry } from '../oci/registry.ts';
import type { Log } from '../telemetry/log.ts';
import { isNodeAddress } from './agreement.ts';
import { counted, offerOf, sourcesOf, type NearestMetrics, type Origins, type Reading } from './blob-sources.ts';
import type { Answer } from './questions.ts';
import type { Sharing } from './sharing.ts';

export interface NearestOptions extends Omit<Origins, 'registry' | 'metrics'> {
  log: Log;
  metrics: NearestMetrics;
}

/** `registry`, with blobs read from the source that it names: itself, S3 or another node (promise
 *  24). If a source does not answer in time, or cuts the connection, at most a second is lost: the
 *  blob continues from another source, and finally from the registry. Bytes from other sources are
 *  hashed, and the end is withheld until the digest matches. Ranges of blobs are always read from
 *  the registry, because a range cannot be verified.
 *  @throws OciError as `registry` does; the body's error is `corrupt` if the bytes do not match the
 *  digest */
export function nearest(registry: Registry, { log, metrics, ...others }: NearestOptions): Registry {
  const origins: Origins = { ...others, registry, metrics };
  const { questions, sharing } = origins;
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
      const answer = await questions.ask({ repository, digest, offer: offerOf(origins) }, own.signal);
      if (answer === undefined) return registry.blob(repository, digest, context);
      const { place, redirection, blob } = answer;
      const shares = sharing?.node() !== undefined;
      if (redirection === undefined && (place === undefined || !shares)) return counted(blob, 'registry', metrics);
      const reading: Reading = { repository, digest, sources: new Set(), failed: undefined };
      metrics.depth(place?.depth ?? 1);
      if (!shares) return stream(reading, { answer, log, signal }, origins);
      signal.removeEventListener('abort', leave);
      try {
        const shared = await share(reading, { answer, sharing, signal }, origins);
        if (shared !== undefined) return shared;
      } catch (error) {
        signal.throwIfAborted();
        log.warn({ event: 'blob-not-shared', digest, error }, 'cannot share a blob with other nodes; reading it only from the registry');
      }
      return registry.blob(repository, digest, context);
    },
  };
}

/** Reads a blob from its sources without keeping it. */
function stream(reading: Reading, { answer, log, signal }: { answer: Answer; log: Log; signal: AbortSignal }, origins: Origins): Blob {
  const { digest } = reading;
  const size = answer.place?.size ?? 0;
  const sources = createSourceList({ digest, sources: sourcesOf(reading, answer, origins), expectedSize: size, log });
  const hash = createDigestHash(digest);
  const body = readWithoutSpool({ digest, sources, maxSize: size, size, from: 0, to: size, hash, hashed: 0 }, signal);
  return { digest, size, range: undefined, body: mapBody(body, {}) };
}

/** Downloads a blob to this node's disk, from which its own client and other nodes read it.
 *  Undefined: the download has already ended. */
async function share(
  reading: Reading,
  { answer, sharing, signal }: { answer: Answer; sharing: Sharing; signal: AbortSignal },
  origins: Origins,
): Promise<Blob | undefined> {
  const { digest, repository } = reading;
  const running = sharing.downloads.running(digest);
  if (running !== undefined && (await running.isJoinable(signal))) {
    const blob = await running.read(undefined, signal);
    if (blob !== undefined) {
      if (answer.blob !== undefined) await discardBody(answer.blob.body);
      return blob;
    }
  }
  const download = sharing.downloads.start(digest, {
    sources: sourcesOf(reading, answer, origins),
    repository,
    upstream: 'registry',
    connections: 1,
    expectedSize: answer.place?.size,
    start: 0,
    isLastResort: false,
    continues: false,
  });
  void reportEnd(reading, { download, startedAt: performance.now() }, origins);
  return download.read(undefined, signal);
}

/** Reports to the registry how a download has ended. */
async function reportEnd(
  { sources, digest }: Reading,
  { download, startedAt }: { download: Download; startedAt: number },
  { sharing, questions }: Pick<Origins, 'sharing' | 'questions'>,
): Promise<void> {
  const { outcome } = await download.result;
  const node = sharing?.node();
  if (node === undefined) return;
  const [only, ...more] = sources;
  const from = more.length === 0 && only !== undefined && isNodeAddress(only) ? only : undefined;
  const failure = outcome === 'corrupt' && from !== undefined ? 'wrong' : 'failed';
  questions.report({
    node,
    digest,
    outcome: outcome === 'whole' ? 'whole' : failure,
    from,
    milliseconds: performance.now() - startedAt,
  });
}
