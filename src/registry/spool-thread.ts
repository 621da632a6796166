import { createHash, type Hash } from 'node:crypto';
import { readSync, writeSync } from 'node:fs';
import module from 'node:module';
import { parentPort } from 'node:worker_threads';
import type { DigestAlgorithm } from '../oci/digest.ts';

/** What is to be done with one of the files: heeded in the order in which they come. */
export type SpoolRequest = { id: number } & (
  | { kind: 'open'; descriptor: number; algorithm: DigestAlgorithm }
  /** `hashed`: these bytes are what the hash takes next. */
  | { kind: 'write'; bytes: Uint8Array; position: number; hashed: boolean }
  /** The hash takes what is at [start, end) of the file. */
  | { kind: 'hash'; start: number; end: number }
  | { kind: 'finish' }
  | { kind: 'close' }
);
/** To each request: to `write` as soon as it is written, before it is hashed; to `finish` with the hash in hex. */
export interface SpoolReply {
  id: number;
  hex?: string;
  error?: { message: string; code: string | undefined };
}

interface File {
  descriptor: number;
  hash: Hash;
}

const files = new Map<number, File>();
const back = Buffer.allocUnsafeSlow(2 ** 18);

function fileOf(id: number): File {
  const file = files.get(id);
  if (file === undefined) throw new Error(`no file ${id} is open`);
  return file;
}

/** @throws the file system's errors */
function heed(request: SpoolRequest): Omit<SpoolReply, 'id'> {
  if (request.kind === 'open') {
    files.set(request.id, { descriptor: request.descriptor, hash: createHash(request.algorithm) });
    return {};
  }
  const { descriptor, hash } = fileOf(request.id);
  if (request.kind === 'write') {
    const { bytes, position } = request;
    for (let done = 0; done < bytes.length;) done += writeSync(descriptor, bytes, done, bytes.length - done, position + done);
  } else if (request.kind === 'hash') {
    for (let at = request.start; at < request.end;) {
      const count = readSync(descriptor, back, 0, Math.min(back.length, request.end - at), at);
      if (count === 0) throw new Error('the spool file is shorter than what was written to it');
      hash.update(back.subarray(0, count));
      at += count;
    }
  } else if (request.kind === 'finish') {
    return { hex: hash.digest('hex') };
  } else {
    files.delete(request.id);
  }
  return {};
}

function answer(request: SpoolRequest): Omit<SpoolReply, 'id'> {
  try {
    return heed(request);
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    return { error: { message, code } };
  }
}

parentPort?.on('message', (request: SpoolRequest) => {
  const { id } = request;
  const reply: SpoolReply = { id, ...answer(request) };
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
  parentPort?.postMessage(reply);
  if (request.kind === 'write' && request.hashed && reply.error === undefined) fileOf(id).hash.update(request.bytes);
});

// The next process need not strip this file of its types: that takes some 15 MB, which a thread never gives back.
module.flushCompileCache();
