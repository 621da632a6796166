import { brotliDecompressSync, gunzipSync, inflateRawSync, inflateSync, zstdDecompressSync } from 'node:zlib';
import { ClashError } from './document.ts';

type Decompress = (bytes: Uint8Array, options: { maxOutputLength: number }) => Buffer;

const DECOMPRESS: Record<string, Decompress> = {
  gzip: gunzipSync,
  'x-gzip': gunzipSync,
  deflate: (bytes, options) => ((bytes[0] ?? 0) % 16 === 8 ? inflateSync(bytes, options) : inflateRawSync(bytes, options)),
  br: brotliDecompressSync,
  zstd: zstdDecompressSync,
};

/** Undoes a Content-Encoding that the request had not asked for. Labels that name no compression
 *  (utf-8, none) are ignored.
 *  @param limit bytes
 *  @throws ClashError: it cannot be decompressed, or is larger than `limit` */
export function decompress(bytes: Uint8Array, encoding: string, limit: number): Uint8Array {
  let decoded = bytes;
  for (const label of encoding.toLowerCase().split(',').toReversed()) {
    const by = DECOMPRESS[label.trim()];
    if (by === undefined) continue;
    try {
      decoded = by(decoded, { maxOutputLength: limit });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE')
        throw new ClashError(`it has more than ${limit / 2 ** 20} MiB, the limit`, { cause: error });
      throw new ClashError(`it is labelled as ${label.trim()} but is not`, { cause: error });
    }
  }
  return decoded;
}

/** Decodes UTF-8, and UTF-16 with a byte order mark or with every other byte zero at its start.
 *  The text has no byte order mark and no blanks around it. */
export function decodeText(bytes: Uint8Array): string {
  const [first, second, third, fourth] = bytes;
  const little = (first === 0xff && second === 0xfe) || (first !== 0 && second === 0 && third !== 0 && fourth === 0);
  const big = (first === 0xfe && second === 0xff) || (first === 0 && second !== 0 && third === 0 && fourth !== 0);
  const encoding = little ? 'utf-16le' : big ? 'utf-16be' : 'utf-8';
  return new TextDecoder(encoding).decode(bytes).trim();
}

/** Decodes base64, also of the URL-safe alphabet, with or without padding, in one line or several.
 *  @returns undefined when it is none */
export function decodeBase64(text: string): string | undefined {
  const compact = text.replace(/\s+/g, '');
  return /^[A-Za-z0-9+/_-]+={0,2}$/.test(compact) ? Buffer.from(compact, 'base64').toString('utf8') : undefined;
}
