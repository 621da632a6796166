import { splitDigest, type Digest, type DigestAlgorithm } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';

/** All blobs of a store, numbered from 0, at about 50 bytes each: a million of them fit into a
 *  registry's memory. */
export interface BlobTable {
  count(): number;
  /** The total size of all blobs, in bytes. */
  bytes(): number;
  /** Adds a blob; call it in ascending order of key, as a store lists them. @throws OciError
   *  UNAVAILABLE: the order differs */
  add(digest: Digest, size: number, modified: number): void;
  /** The number of a blob; -1: it is not stored. */
  find(digest: Digest): number;
  digest(index: number): Digest;
  /** Bytes. */
  size(index: number): number;
  /** Milliseconds since the epoch. */
  modified(index: number): number;
}

const WIDTH = { sha256: 32, sha512: 64 } as const;

export function createBlobTable(): BlobTable {
  // `sha256` is listed before `sha512`: one numbering serves both.
  const digests = { sha256: createColumn('sha256'), sha512: createColumn('sha512') };
  let sizes = new Float64Array(1024);
  let modified = new Float64Array(1024);
  let count = 0;
  let bytes = 0;

  return {
    count: () => count,
    bytes: () => bytes,
    add(digest, size, at) {
      const { algorithm, hex } = splitDigest(digest);
      if (!digests[algorithm].append(hex) || (algorithm === 'sha256' && digests.sha512.count() > 0)) {
        throw new OciError('UNAVAILABLE', 'the store does not list its objects in order, so its listing cannot be used', {
          origin: 'storage',
        });
      }
      if (count === sizes.length) {
        sizes = enlarged(sizes);
        modified = enlarged(modified);
      }
      sizes[count] = size;
      modified[count] = at;
      count++;
      bytes += size;
    },
    find(digest) {
      const { algorithm, hex } = splitDigest(digest);
      const index = digests[algorithm].find(hex);
      return index === -1 || algorithm === 'sha256' ? index : index + digests.sha256.count();
    },
    digest(index) {
      const short = digests.sha256.count();
      return (index < short ? `sha256:${digests.sha256.at(index)}` : `sha512:${digests.sha512.at(index - short)}`) as Digest;
    },
    size: (index) => sizes[index] ?? 0,
    modified: (index) => modified[index] ?? 0,
  };
}

function enlarged(array: Float64Array<ArrayBuffer>): Float64Array<ArrayBuffer> {
  const larger = new Float64Array(array.length * 2);
  larger.set(array);
  return larger;
}

/** The digests of one algorithm, in one array. */
function createColumn(algorithm: DigestAlgorithm) {
  const width = WIDTH[algorithm];
  const wanted = Buffer.alloc(width);
  let all = Buffer.alloc(0);
  let count = 0;

  return {
    count: () => count,
    at: (index: number): string => all.toString('hex', index * width, (index + 1) * width),
    /** False: it is out of order. */
    append(hex: string): boolean {
      wanted.write(hex, 'hex');
      const end = count * width;
      if (count > 0 && all.compare(wanted, 0, width, end - width, end) >= 0) return false;
      if (end === all.length) all = Buffer.concat([all, Buffer.alloc(Math.max(1024 * width, end))]);
      wanted.copy(all, end);
      count++;
      return true;
    },
    find(hex: string): number {
      wanted.write(hex, 'hex');
      let low = 0;
      for (let high = count; low < high;) {
        const middle = (low + high) >>> 1;
        const order = all.compare(wanted, 0, width, middle * width, (middle + 1) * width);
        if (order === 0) return middle;
        if (order < 0) low = middle + 1;
        else high = middle;
      }
      return -1;
    },
  };
}
