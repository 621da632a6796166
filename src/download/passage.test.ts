import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { open as openFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { captureLog } from '../../test/support/log.ts';
import { randomBytes } from '../../test/support/image.ts';
import { temporaryDirectory } from '../../test/support/temporary.ts';
import { digestOf } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import type { ByteRange } from '../oci/range.ts';
import type { Blob } from '../oci/registry.ts';
import { createBlobParts } from '../store/blob-parts.ts';
import { blobKey, partKey, PARTS } from '../store/keys.ts';
import { bytesSource } from '../store/store.ts';
import type { UploadStore } from '../store/upload-store.ts';
import { uploadMemory } from '../testing/upload-memory.ts';
import { keysOf } from '../testing/store-suite.ts';
import { createSourceList } from './source.ts';
import { startTransfer, type Transfer } from './transfer.ts';

const MiB = 2 ** 20;
const PART = 8 * MiB;
/** The smallest window, of two parts. */
const ROOM = 16 * MiB;
const BYTES = randomBytes('passage', 3 * PART + 5 * MiB);
const DIGEST = digestOf(BYTES);
const { signal } = new AbortController();
const directory = await temporaryDirectory();
after(() => directory[Symbol.asyncDispose]());
const { log } = await captureLog();

/** A transfer of the blob through a window of two parts. `sent` counts what upstream has sent. */
async function start(store: UploadStore) {
  const counts = { sent: 0 };
  function open(range: ByteRange | undefined): Promise<Blob> {
    const [from, to] = [range?.start ?? 0, range?.end ?? BYTES.length - 1];
    async function* body() {
      for (let at = from; at <= to; at += 64 * 1024) {
        const chunk = await Promise.resolve(Buffer.from(BYTES.subarray(at, Math.min(at + 64 * 1024, to + 1))));
        counts.sent += chunk.length;
        yield chunk;
      }
    }
    return Promise.resolve({ digest: DIGEST, size: BYTES.length, range: range && { start: from, end: to }, body: body() });
  }
  const transfer = startTransfer({
    digest: DIGEST,
    spool: await openFile(join(directory.path, String(Math.random())), 'wx+'),
    maxSize: 1024 * MiB,
    helpers: { take: () => undefined, discourage: () => undefined, isBusy: () => false, pace: () => undefined, learn: () => undefined },
    room: { grow: (total) => total <= ROOM, release: () => undefined },
    max: 1,
    start: 0,
    parts: createBlobParts(store),
    sources: createSourceList({ digest: DIGEST, sources: [{ name: 'upstream', open }], expectedSize: undefined, log }),
  });
  return { transfer, counts };
}

async function hashOf(transfer: Transfer): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of (await transfer.read(undefined, signal))?.body ?? []) hash.update(chunk);
  return `sha256:${hash.digest('hex')}`;
}

async function end(transfer: Transfer): Promise<void> {
  await transfer.passage()?.close();
  transfer.close();
}

test('promise 19: a blob that has no room is stored in parts, and made of them once its digest is right', async () => {
  const store = uploadMemory();
  const { transfer, counts } = await start(store);
  assert.deepEqual(await Promise.all([hashOf(transfer), hashOf(transfer)]), [DIGEST, DIGEST]);
  assert.equal(await transfer.outcome, 'in-parts');
  assert.equal(await store.stat(blobKey(DIGEST), { signal }), undefined, 'it has no name of its own before');
  assert.equal(await hashOf(transfer), DIGEST, 'a late reader reads the parts');
  await transfer.passage()?.join(signal);
  assert.equal((await store.stat(blobKey(DIGEST), { signal }))?.size, BYTES.length);
  assert.equal(await hashOf(transfer), DIGEST, 'a later reader reads the blob');
  assert.ok(counts.sent < 1.05 * BYTES.length);
  await end(transfer);
});

test('promise 19: a part that the storage refuses at first is tried again', async () => {
  let refused = 0;
  const store = uploadMemory((operation, key) => {
    if (operation === 'write' && key.startsWith(PARTS) && refused++ < 2)
      throw new OciError('UNAVAILABLE', 'SlowDown', { origin: 'storage' });
  });
  const { transfer } = await start(store);
  assert.equal(await hashOf(transfer), DIGEST);
  assert.equal(await transfer.outcome, 'in-parts');
  await end(transfer);
});

test('promise 19: a storage that takes no part costs its clients a copy each, and fails none', async () => {
  const store = uploadMemory((operation) => {
    if (operation === 'write') throw new OciError('UNAVAILABLE', 'AccessDenied', { origin: 'storage' });
  });
  const { transfer } = await start(store);
  assert.deepEqual(await Promise.all([hashOf(transfer), hashOf(transfer)]), [DIGEST, DIGEST]);
  assert.equal(await transfer.outcome, 'streamed');
  assert.equal(transfer.isSpoolFull(), true);
  assert.match(String(transfer.passage()?.refusal()), /AccessDenied/);
  await end(transfer);
});

test('promise 19: a reader whose part the storage has lost gets its bytes from upstream, and the blob is not made without it', async () => {
  const store = uploadMemory();
  const { transfer } = await start(store);
  assert.equal(await hashOf(transfer), DIGEST);
  assert.equal(await transfer.outcome, 'in-parts');
  const [first = ''] = await keysOf(store, PARTS);
  await store.remove(first, { signal });
  assert.equal(await hashOf(transfer), DIGEST);
  await assert.rejects(transfer.passage()?.join(signal) ?? assert.fail(), /missing/);
  assert.equal(await store.stat(blobKey(DIGEST), { signal }), undefined);
  await end(transfer);
});

test('promise 20: the parts of an interrupted download are read instead of asking upstream; truncated parts are uploaded again, and a wrong bit is detected', async () => {
  const cases: [name: string, end: number, change: (bytes: Buffer) => Buffer, outcome: string][] = [
    ['whole parts', 2 * PART, (bytes) => bytes, 'in-parts'],
    ['a part that is cut', PART - 5, (bytes) => bytes, 'in-parts'],
    ['a flipped bit', PART, (bytes) => Buffer.concat([bytes.subarray(0, -1), Buffer.from([bytes.at(-1)! ^ 1])]), 'corrupt'],
  ];
  for (const [name, length, change, outcome] of cases) {
    const store = uploadMemory();
    for (let at = 0; at < length; at += PART) {
      const key = partKey(DIGEST, { size: BYTES.length, start: at, nonce: '0123456789abcdef' });
      const bytes = change(Buffer.from(BYTES.subarray(at, Math.min(at + PART, length))));
      await store.write(key, bytesSource(bytes), { signal });
    }
    const { transfer, counts } = await start(store);
    if (outcome === 'corrupt') await assert.rejects(hashOf(transfer), /do not match/);
    else assert.equal(await hashOf(transfer), DIGEST, name);
    assert.equal(await transfer.outcome, outcome, name);
    assert.ok(counts.sent < BYTES.length - length + MiB, `${name}: upstream has sent ${counts.sent}`);
    await end(transfer);
  }
});
