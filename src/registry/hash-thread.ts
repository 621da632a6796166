import { createHash, type Hash } from 'node:crypto';
import { parentPort } from 'node:worker_threads';
import type { DigestAlgorithm } from '../oci/digest.ts';

/** What is to be done for one of the hashes: heeded in the order in which they come. */
export type HashRequest =
  | { kind: 'update'; id: number; algorithm: DigestAlgorithm; bytes: Uint8Array }
  | { kind: 'finish'; id: number; algorithm: DigestAlgorithm }
  | { kind: 'drop'; id: number };
/** To each request, in their order; to `finish` with the hash in hex. */
export interface HashReply {
  id: number;
  hex?: string;
}

const hashes = new Map<number, Hash>();

function hashOf({ id, algorithm }: { id: number; algorithm: DigestAlgorithm }): Hash {
  const known = hashes.get(id) ?? createHash(algorithm);
  hashes.set(id, known);
  return known;
}

function reply(message: HashReply): void {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread's port has no origin
  parentPort?.postMessage(message);
}

parentPort?.on('message', (request: HashRequest) => {
  const { kind, id } = request;
  if (kind === 'update') hashOf(request).update(request.bytes);
  if (kind === 'drop') hashes.delete(id);
  reply(kind === 'finish' ? { id, hex: hashOf(request).digest('hex') } : { id });
});
