import { inParallel } from '../../async/parallel.ts';
import { OciError } from '../../oci/error.ts';
import type { ByteRange } from '../../oci/range.ts';
import type { Store } from '../store.ts';
import type { UploadPart, UploadStore } from '../upload-store.ts';
import { codeOf, statusOf } from './errors.ts';
import { MAX_PUT, MIN_PART_SIZE, type CopySource, type Target } from './put.ts';
import type { BodyWriter, StreamsOptions } from './streams.ts';

/** A blob may have come in thousands of parts. */
const COPIES_AT_ONCE = 4;

export interface ComposeOptions extends StreamsOptions {
  read: Store['read'];
  writeBody: BodyWriter;
}

/** Joins objects in S3: by copies there, or, where the server or the sizes do not allow that, by
 *  reading and writing them. */
export function createCompose(options: ComposeOptions): UploadStore['compose'] {
  const { attempt, target, read, writeBody } = options;
  return async (parts, key, { signal }) => {
    const size = parts.reduce((sum, part) => sum + part.size, 0);
    const isCopyable = size > 0 && parts.slice(0, -1).every((part) => part.size >= MIN_PART_SIZE);
    if (isCopyable) {
      try {
        await attempt({ doing: `copying to ${key}`, kind: 'write', signal, limit: Infinity }, async () =>
          copy(options, parts, { to: await target(key, signal), signal }).then(() => true),
        );
        return;
      } catch (error) {
        if (!isUnsupported(error)) throw error;
      }
    }
    await writeBody(key, readParts(read, parts, signal), { size, signal });
  };
}

async function copy(
  { putter, target }: ComposeOptions,
  parts: readonly UploadPart[],
  { to, signal }: { to: Target; signal: AbortSignal },
): Promise<void> {
  const sources = await Promise.all(parts.map(async ({ key, size }) => ({ source: copySource(await target(key, signal)), size })));
  const [only] = sources;
  if (sources.length === 1 && only !== undefined && only.size <= MAX_PUT) return putter.copy(to, only.source, signal);
  await putter.inParts(to, signal, async (copies) => {
    await inParallel(piecesOf(sources), COPIES_AT_ONCE, ({ source, range }) => copies.addCopy(source, range));
  });
}

/** The sources in pieces of a size that S3 copies at once, in order. */
function* piecesOf(
  sources: readonly { source: CopySource; size: number }[],
): Generator<{ source: CopySource; range: Required<ByteRange> }> {
  for (const { source, size } of sources) {
    for (let start = 0; start < size; start += MAX_PUT) yield { source, range: { start, end: Math.min(start + MAX_PUT, size) - 1 } };
  }
}

async function* readParts(read: Store['read'], parts: readonly UploadPart[], signal: AbortSignal): AsyncGenerator<Uint8Array> {
  for (const { key } of parts) {
    const found = await read(key, { signal });
    if (found === undefined) throw new OciError('UNAVAILABLE', `${key} is missing in the storage`, { origin: 'storage' });
    yield* found.body;
  }
}

/** Not every S3 server supports copies on the server. */
function isUnsupported(error: unknown): boolean {
  const cause = error instanceof OciError ? error.cause : error;
  return statusOf(cause) === 501 || ['NotImplemented', 'MethodNotAllowed', 'InvalidRequest'].includes(codeOf(cause) ?? '');
}

function copySource({ Bucket, Key }: Target): string {
  return [Bucket, ...Key.split('/')].map(encodeURIComponent).join('/');
}
