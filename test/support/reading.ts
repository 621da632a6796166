import { createHash, randomInt } from 'node:crypto';
import { readSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { sliceOf } from '../../src/io/slice.ts';
import type { Body } from '../../src/oci/registry.ts';

export interface Read {
  status: number;
  /** sha256, of the body. */
  digest: string;
  /** Bytes. */
  size: number;
  /** Seconds until the headers. */
  headers: number;
  /** Seconds until the first byte of the body. */
  firstByte: number;
  /** Seconds in all. */
  seconds: number;
}

/** Reads a URL to its end, at `rate` bytes a second at most; stops after `stopAfter` bytes. Rejects
 *  when it is cut. */
export async function read(url: string, options: { range?: string; rate?: number; stopAfter?: number } = {}): Promise<Read> {
  const started = performance.now();
  const since = () => (performance.now() - started) / 1000;
  const stop = new AbortController();
  const response = await fetch(url, { headers: options.range === undefined ? {} : { range: options.range }, signal: stop.signal });
  const headers = since();
  const hash = createHash('sha256');
  let size = 0;
  let firstByte = 0;
  for await (const chunk of response.body ?? []) {
    firstByte ||= since();
    hash.update(chunk as Uint8Array);
    size += (chunk as Uint8Array).length;
    if (options.stopAfter !== undefined && size >= options.stopAfter) {
      stop.abort();
      break;
    }
    if (options.rate !== undefined) await delay(Math.max(0, (size / options.rate - since()) * 1000));
  }
  return { status: response.status, digest: `sha256:${hash.digest('hex')}`, size, headers, firstByte, seconds: since() };
}

/** The code of an error answer, after the check that it is one and has a message. */
export async function errorCode(response: Response): Promise<string> {
  const text = await response.text();
  const { errors } = JSON.parse(text) as { errors: { code: string; message: string }[] };
  if ((errors[0]?.message.length ?? 0) < 10) throw new Error(`an error without a message: ${text}`);
  return errors[0]?.code ?? '';
}

/** Reads the parts of a body that are in files from these files, in pieces of any length, and every
 *  fourth time a chunk instead.
 *  @returns the whole, and how much of it came from files */
export async function readByStretches(body: Body): Promise<{ bytes: Buffer; filed: number }> {
  const iterator = body[Symbol.asyncIterator]();
  const nextSlice = sliceOf(body);
  const parts: Uint8Array[] = [];
  let filed = 0;
  for (let taken = 0, turn = 1; ; turn++) {
    const stretch = await nextSlice?.(taken);
    taken = 0;
    if (stretch !== undefined && 'file' in stretch && turn % 4 > 0) {
      const part = Buffer.alloc(randomInt(stretch.length) + 1);
      taken = readSync(stretch.file.fd, part, 0, part.length, stretch.position);
      parts.push(part.subarray(0, taken));
      filed += taken;
      continue;
    }
    const { value, done } = await iterator.next();
    if (done === true) return { bytes: Buffer.concat(parts), filed };
    parts.push(Uint8Array.from(value));
  }
}
