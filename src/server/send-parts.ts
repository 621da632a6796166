import { randomBytes } from 'node:crypto';
import { BLOB_MEDIA_TYPE } from '../oci/descriptor.ts';
import { OciError } from '../oci/error.ts';
import type { ByteRange } from '../oci/range.ts';
import type { Blob, Body } from '../oci/registry.ts';

/** The body of an answer with several parts of a blob (RFC 9110 §14.6). */
export interface MultipartBody {
  contentType: string;
  /** Bytes. */
  length: number;
  body: Body;
}

export interface MultipartOptions {
  /** The size of the whole blob, in bytes. */
  size: number;
  /** Inside the blob, in the order in which they are sent. */
  ranges: readonly Required<ByteRange>[];
  /** Opens a range of the blob. */
  open(this: void, range: Required<ByteRange>): Promise<Blob>;
}

/** Returns the multipart/byteranges body of `ranges`. `first` is the first range, already open; the
 *  others are opened one after the other. The body throws what `open` throws. */
export function multipartBody(first: Blob, { size, ranges, open }: MultipartOptions): MultipartBody {
  const boundary = randomBytes(18).toString('hex');
  const heads = ranges.map(({ start, end }, index) =>
    Buffer.from(
      `${index === 0 ? '' : '\r\n'}--${boundary}\r\nContent-Type: ${BLOB_MEDIA_TYPE}\r\nContent-Range: bytes ${start}-${end}/${size}\r\n\r\n`,
    ),
  );
  const tail = Buffer.from(`\r\n--${boundary}--\r\n`);

  async function* parts(): AsyncGenerator<Uint8Array> {
    for (const [index, range] of ranges.entries()) {
      const blob = index === 0 ? first : await open(range);
      if (blob.range?.start !== range.start || blob.range.end !== range.end) {
        throw new OciError('UNAVAILABLE', 'a part of the blob came as another range than was requested');
      }
      yield heads[index] ?? tail;
      yield* blob.body;
    }
    yield tail;
  }

  const length = heads.reduce((sum, head) => sum + head.length, tail.length) + rangeBytes(ranges);
  return { contentType: `multipart/byteranges; boundary=${boundary}`, length, body: parts() };
}

/** Bytes of all ranges together. */
export function rangeBytes(ranges: readonly Required<ByteRange>[]): number {
  return ranges.reduce((sum, { start, end }) => sum + end - start + 1, 0);
}
