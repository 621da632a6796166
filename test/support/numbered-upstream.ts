import { createHash } from 'node:crypto';
import { createServer, type ServerResponse } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { randomBytes } from './image.ts';
import { listenOnLoopback } from './http.ts';

// A large blob that is nowhere as a whole: blocks of the same random bytes, each of which begins with its number.

const BLOCK = 2 ** 20;
const HEAD = 8;
const base = randomBytes('numbered', BLOCK);

let last = { index: -1, bytes: base };

function block(index: number): Buffer {
  if (last.index === index) return last.bytes;
  const bytes = Buffer.from(base);
  bytes.writeBigUInt64LE(BigInt(index));
  last = { index, bytes };
  return bytes;
}

/** The digest of the blob of `size` bytes. */
function numberedDigest(size: number): string {
  const hash = createHash('sha256');
  for (let at = 0; at < size; at += BLOCK) hash.update(block(at / BLOCK).subarray(0, size - at));
  return `sha256:${hash.digest('hex')}`;
}

/** Whether `chunk` holds the blob's bytes from `position` on. */
export function isNumbered(chunk: Uint8Array, position: number): boolean {
  for (let done = 0; done < chunk.length;) {
    const at = position + done;
    const [index, offset] = [Math.floor(at / BLOCK), at % BLOCK];
    const length = Math.min(chunk.length - done, BLOCK - offset);
    const expected = offset < HEAD ? block(index) : base;
    if (Buffer.compare(chunk.subarray(done, done + length), expected.subarray(offset, offset + length)) !== 0) return false;
    done += length;
  }
  return true;
}

export interface NumberedUpstream extends AsyncDisposable {
  url: string;
  digest: string;
  /** Bytes sent. */
  sent(): number;
}

/** A registry that has this blob alone, behind a line of `rate` bytes a second for all connections together. */
export async function startNumberedUpstream({ size, rate }: { size: number; rate: number }): Promise<NumberedUpstream> {
  const digest = numberedDigest(size);
  let sent = 0;
  let due = 0;

  async function send(response: ServerResponse, start: number, end: number): Promise<void> {
    for (let at = start; at < end && !response.destroyed;) {
      const offset = at % BLOCK;
      const piece = block(Math.floor(at / BLOCK)).subarray(offset, offset + Math.min(end - at, 2 ** 18));
      due = Math.max(due, performance.now() - 50) + (1000 * piece.length) / rate;
      const wait = due - performance.now();
      if (wait > 1) await delay(wait);
      at += piece.length;
      sent += piece.length;
      if (!response.write(piece)) await new Promise<void>((resolve) => response.once('drain', resolve).once('close', resolve));
    }
    response.end();
  }

  const server = createServer((request, response) => {
    if (!(request.url ?? '').endsWith(`/blobs/${digest}`)) {
      response.writeHead(request.url === '/v2/' ? 200 : 404).end();
      return;
    }
    const [, first, final] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '') ?? [];
    const start = Number(first ?? 0);
    const end = final === undefined || final === '' ? size : Number(final) + 1;
    const range = first === undefined ? {} : { 'content-range': `bytes ${start}-${end - 1}/${size}` };
    response.writeHead(first === undefined ? 200 : 206, {
      'content-type': 'application/octet-stream',
      'docker-content-digest': digest,
      'content-length': end - start,
      ...range,
    });
    if (request.method === 'HEAD') response.end();
    else send(response, start, end).catch(() => response.destroy());
  });
  const listening = await listenOnLoopback(server);
  return { url: listening.url, digest, sent: () => sent, [Symbol.asyncDispose]: () => listening[Symbol.asyncDispose]() };
}
