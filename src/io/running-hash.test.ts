import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { fstatSync, openSync } from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { temporaryDirectory } from '../../test/support/temporary.ts';
import { digestOf } from '../oci/digest.ts';
import { fileWorker } from './file-workers.ts';
import { createRunningHash } from './running-hash.ts';

const MIB = 2 ** 20;
const directory = await temporaryDirectory();
after(() => directory[Symbol.asyncDispose]());

/** Pieces with memory of their own, as Node's HTTP parser makes them. */
function piecesOf(bytes: Buffer, size: number): Uint8Array[] {
  return Array.from({ length: Math.ceil(bytes.length / size) }, (_, n) => Uint8Array.from(bytes.subarray(n * size, (n + 1) * size)));
}

test('bytes are written to one file after the other, and hashed, in the order of the calls, by the event loop or a worker', async () => {
  const bytes = randomBytes(3 * MIB + 5);
  for (const algorithm of ['sha256', 'sha512'] as const) {
    // The first bytes decide who hashes.
    for (const first of [1, 1000, MIB]) {
      const hash = createRunningHash(algorithm);
      const parts = [bytes.subarray(0, first), bytes.subarray(first, 2 * MIB), bytes.subarray(2 * MIB)];
      for (const [n, part] of parts.entries()) {
        const path = join(directory.path, `${algorithm}-${first}-${n}`);
        await using file = await open(path, 'wx');
        const half = part.length >> 1;
        await Promise.all([
          hash.append(file, piecesOf(part.subarray(0, half), 2 ** 16)),
          hash.append(file, [part.subarray(half)]), // a view of memory that others use
        ]);
        assert.ok(part.equals(await readFile(path)));
        const soFar = bytes.subarray(
          0,
          parts.slice(0, n + 1).reduce((sum, { length }) => sum + length, 0),
        );
        assert.equal(await hash.agrees(digestOf(soFar, algorithm)), true);
        assert.equal(await hash.agrees(digestOf(part.subarray(1), algorithm)), false);
      }
      assert.equal(await hash.agrees(digestOf(bytes, algorithm === 'sha256' ? 'sha512' : 'sha256')), false);
      hash.close();
    }
  }
});

test('a file that cannot be written is an error, with its code', async () => {
  const path = join(directory.path, 'read-only');
  await using file = await open(path, 'wx');
  await using unwritable = await open(path, 'r');
  for (const size of [1000, MIB]) {
    const hash = createRunningHash('sha256');
    await assert.rejects(hash.append(unwritable, [new Uint8Array(size)]), { code: 'EBADF' });
    hash.close();
  }
  assert.equal((await file.stat()).size, 0);
});

test('a socket that cannot be handed to a worker, because that has ended, is closed', async () => {
  await using file = await open(join(directory.path, 'ended'), 'wx');
  const worker = fileWorker('receive')?.open('sha256');
  assert.ok(worker !== undefined);
  await worker.ask({ kind: 'write', descriptor: file.fd, bytes: 5 as never, position: 0, hashed: true }); // which cannot be hashed
  await assert.rejects(worker.ask({ kind: 'digest' }), TypeError);
  const socket = openSync('/dev/null', 'r');
  await assert.rejects(worker.ask({ kind: 'receive', descriptor: file.fd, begun: [], socket, length: 1, syncSize: 1 }), TypeError);
  assert.throws(() => fstatSync(socket), { code: 'EBADF' });
});
