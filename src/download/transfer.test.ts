import assert from 'node:assert/strict';
import { open as openSpool } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { readByStretches } from '../../test/support/reading.ts';
import { temporaryDirectory } from '../../test/support/temporary.ts';
import { digestOf, type Digest } from '../oci/digest.ts';
import { isOciError, OciError } from '../oci/error.ts';
import type { ByteRange } from '../oci/range.ts';
import type { Blob } from '../oci/registry.ts';
import { createBody } from '../io/body.ts';
import { sliceOf } from '../io/slice.ts';
import { captureLog } from '../../test/support/log.ts';
import { createSourceList, type BlobSource } from './source.ts';
import { startTransfer, type Transfer, type TransferOptions } from './transfer.ts';

const KiB = 1024;
const BYTES = Buffer.from(Array.from({ length: 1000 * KiB }, (_, index) => (index * 2_654_435_761) >>> 24));
const DIGEST = digestOf(BYTES);
const signal = new AbortController().signal;
const directory = await temporaryDirectory();
after(() => directory[Symbol.asyncDispose]());

/** A source that answers each request with `content(request)`, in chunks. */
function sourceOf(content: (request: number) => Buffer) {
  let requests = 0;
  return (range: ByteRange | undefined): Promise<Blob> => {
    const bytes = content(++requests);
    const start = range?.start ?? 0;
    const end = Math.min(range?.end ?? bytes.length - 1, bytes.length - 1);
    async function* body() {
      for (let at = start; at <= end; at += 64 * KiB) yield await Promise.resolve(bytes.subarray(at, Math.min(at + 64 * KiB, end + 1)));
    }
    return Promise.resolve({ digest: DIGEST, size: bytes.length, range: range === undefined ? undefined : { start, end }, body: body() });
  };
}

type Own = { digest: Digest; open: BlobSource['open'] } & Pick<TransferOptions, 'spool'> & Partial<TransferOptions>;

const { log } = await captureLog();

/** Starts a transfer over one connection, with unlimited room, unless `own` says otherwise. */
function start({ open, ...own }: Own): Transfer {
  const transfer = startTransfer({
    max: 1,
    maxSize: 10 * BYTES.length,
    helpers: { take: () => undefined, discourage: () => undefined, isBusy: () => false, pace: () => undefined, learn: () => undefined },
    room: { grow: () => true, release: () => undefined },
    start: 0,
    sources: createSourceList({ digest: own.digest, sources: [{ name: 'upstream', open }], expectedSize: undefined, log }),
    ...own,
  });
  void transfer.outcome.then(() => transfer.close());
  return transfer;
}

/** A transfer whose disk is full from the first byte on. */
async function withoutRoom(content: (request: number) => Buffer): Promise<Transfer> {
  return start({ digest: DIGEST, open: sourceOf(content), spool: await openSpool('/dev/full', 'r+') });
}

async function readAll(transfer: Transfer, range?: ByteRange): Promise<Buffer> {
  const blob = await transfer.read(range, signal);
  const chunks: Uint8Array[] = [];
  for await (const chunk of blob?.body ?? []) chunks.push(Uint8Array.from(chunk));
  return Buffer.concat(chunks);
}

test('promise 14: on a full disk every reader gets the whole blob and its ranges from upstream, also after the download has ended', async () => {
  const transfer = await withoutRoom(() => BYTES);
  const first = await readAll(transfer);
  assert.ok(first.equals(BYTES));
  assert.equal(await transfer.outcome, 'streamed');
  assert.equal(transfer.isSpoolFull(), true);
  assert.ok((await readAll(transfer)).equals(BYTES));
  for (const range of [{ start: 10, end: 20 }, { start: 900 * KiB }, { start: BYTES.length - 1 }]) {
    assert.ok((await readAll(transfer, range)).equals(BYTES.subarray(range.start, (range.end ?? BYTES.length) + 1)), JSON.stringify(range));
  }
  assert.equal((transfer.spoolError() as NodeJS.ErrnoException).code, 'ENOSPC');
});

test('promise 3: bytes downloaded again after the disk was full are verified again', async () => {
  for (const at of [0, 500 * KiB, BYTES.length - 1]) {
    const wrong = Buffer.from(BYTES);
    wrong[at] = (wrong[at] ?? 0) ^ 1;
    const transfer = await withoutRoom((request) => (request === 1 ? BYTES : wrong));
    for (const range of [undefined, { start: 100 * KiB }]) {
      await assert.rejects(
        readAll(transfer, range),
        (error) => isOciError(error, 'UNAVAILABLE'),
        `wrong at ${at}, ${JSON.stringify(range)}`,
      );
    }
    await transfer.outcome;
    await assert.rejects(readAll(transfer), (error) => isOciError(error, 'UNAVAILABLE'));
  }
});

test('a reader at the front of a transfer gets the bytes from memory: nothing is read back from the spool', async () => {
  const bytes = BYTES.subarray(0, 700 * KiB); // no more than is kept in memory
  const transfer = start({
    digest: digestOf(bytes),
    open: sourceOf(() => bytes),
    spool: await openSpool(join(directory.path, 'spool'), 'w'), // not to be read
    maxSize: bytes.length,
  });
  assert.ok((await readAll(transfer)).equals(bytes));
});

test('a reader that can send files follows a transfer through the spool file, but never to the end of wrong bytes', async () => {
  for (const range of [undefined, { start: 100 * KiB, end: 900 * KiB }]) {
    const right = start({ digest: DIGEST, open: sourceOf(() => BYTES), spool: await openSpool(join(directory.path, 'right'), 'w+') });
    const blob = await right.read(range, signal);
    const { bytes, filed } = await readByStretches(blob?.body ?? assert.fail());
    assert.ok(bytes.equals(range === undefined ? BYTES : BYTES.subarray(range.start, range.end + 1)));
    assert.ok(filed > 0);
  }

  const wrong = start({
    digest: digestOf(Buffer.from('something else')),
    open: sourceOf(() => BYTES),
    spool: await openSpool(join(directory.path, 'wrong'), 'w+'),
  });
  const wrongBody = (await wrong.read(undefined, signal))?.body ?? assert.fail();
  let position = 0;
  await assert.rejects(async () => {
    for (let taken = 0; ;) {
      const stretch = (await sliceOf(wrongBody)?.(taken)) ?? assert.fail();
      assert.ok('file' in stretch);
      assert.equal(stretch.position, position);
      taken = stretch.length;
      position += taken;
    }
  }, /do not match/);
  assert.equal(position, BYTES.length - 64 * KiB);

  const full = await withoutRoom(() => BYTES);
  const blob = await full.read(undefined, signal);
  assert.deepEqual(await readByStretches(blob?.body ?? assert.fail()), { bytes: BYTES, filed: 0 });
});

test('a response that gives a different size than earlier ones is dropped and requested again', async () => {
  let opened = 0;
  const source = sourceOf(() => BYTES);
  let requests = 0;
  const transfer = start({
    digest: DIGEST,
    spool: await openSpool(join(directory.path, 'sizes'), 'w+'),
    async open(range) {
      const request = ++requests;
      const blob = await source(range);
      const iterator = blob.body[Symbol.asyncIterator]();
      let given = 0;
      opened++;
      const body = createBody(
        {
          async pull() {
            if (request === 1 && given > 300 * KiB) throw new Error('cut');
            const { value, done } = await iterator.next();
            given += value?.length ?? 0;
            return done === true ? undefined : value;
          },
          close: () => Promise.resolve(void opened--),
        },
        signal,
      );
      return { ...blob, body, ...(request === 2 ? { size: BYTES.length + 1 } : {}) };
    },
  });
  assert.ok((await readAll(transfer)).equals(BYTES));
  await transfer.outcome;
  assert.equal(requests, 3);
  assert.equal(opened, 0);
});

test('when a transfer fails before its first byte, every reader gets the error', async () => {
  const transfer = start({
    digest: 'sha256:none' as Digest,
    open: () => Promise.reject(new OciError('DENIED', 'not for you')),
    spool: await openSpool('/dev/full', 'r+'),
    maxSize: 1,
  });
  for (let reader = 0; reader < 2; reader++) await assert.rejects(transfer.read(undefined, signal), (error) => isOciError(error, 'DENIED'));
  await transfer.outcome;
  await assert.rejects(transfer.read(undefined, signal), (error) => isOciError(error, 'DENIED'));
});

test('promise 6: when several connections recently paid off, each requests its part from the start, and no byte arrives twice', async () => {
  const quarter = 6;
  const asked = await requestsOf({ size: 4 * quarter, expectedSize: 4 * quarter * MEBIBYTE });
  assert.deepEqual(
    asked,
    [0, 1, 2, 3].map((index) => mebibytes(index * quarter, (index + 1) * quarter)),
  );
});

test('promise 6: where several connections are known to be faster, each downloads the same share of a blob of unknown size', async () => {
  const [first, ...others] = await requestsOf({ size: 32 });
  assert.deepEqual(first, mebibytes(0, 4), 'the smallest worthwhile segment, until the size is known');
  assert.deepEqual(others, [mebibytes(8, 16), mebibytes(16, 24), mebibytes(24, 32), mebibytes(4, 8)]);
});

const MEBIBYTE = 2 ** 20;

function mebibytes(from: number, to: number): ByteRange {
  return { start: from * MEBIBYTE, end: to * MEBIBYTE - 1 };
}

/** Downloads a blob of `size` MiB over at most four connections, which are known to be faster than
 *  one. @returns the ranges that were requested */
async function requestsOf({ size, expectedSize }: { size: number; expectedSize?: number }): Promise<(ByteRange | undefined)[]> {
  const bytes = Buffer.alloc(size * MEBIBYTE, 'parts');
  const asked: (ByteRange | undefined)[] = [];
  const content = sourceOf(() => bytes);
  const transfer = start({
    digest: digestOf(bytes),
    spool: await openSpool(join(directory.path, `parts of ${size}`), 'w+'),
    max: 4,
    maxSize: bytes.length,
    expectedSize,
    helpers: {
      take: () => () => undefined,
      discourage: () => undefined,
      isBusy: () => false,
      pace: () => ({ rate: 1000, roundTripMs: 10 }),
      learn: () => undefined,
    },
    open: (range) => {
      asked.push(range);
      return content(range);
    },
  });
  assert.ok((await readAll(transfer)).equals(bytes));
  assert.equal(await transfer.outcome, 'whole');
  return asked;
}

test('promise 6: a download that became faster after an additional connection was refused is no evidence for additional connections', async (t) => {
  const bytes = Buffer.alloc(24 * 1024 * KiB, 'refused');
  const digest = digestOf(bytes);
  let refused = 0;
  let learned = 0;
  /** The first megabyte comes slowly, so that another connection is taken, and the rest at once. */
  async function* body() {
    for (let at = 0; at < bytes.length; at += 64 * KiB) {
      await delay(at < 1024 * KiB ? 20 : 0);
      yield bytes.subarray(at, at + 64 * KiB);
    }
  }
  const transfer = start({
    digest,
    spool: await openSpool(join(directory.path, t.name.slice(0, 100)), 'w+'),
    max: 4,
    maxSize: bytes.length,
    helpers: {
      take: () => () => undefined,
      discourage: () => undefined,
      isBusy: () => false,
      pace: () => undefined,
      learn: () => void learned++,
    },
    open(range) {
      if (range === undefined) return Promise.resolve({ digest, size: bytes.length, range: undefined, body: body() });
      refused++;
      return Promise.reject(new OciError('DENIED', 'no ranges here'));
    },
  });
  assert.ok((await readAll(transfer)).equals(bytes));
  assert.equal(await transfer.outcome, 'whole');
  assert.ok(refused > 0);
  assert.equal(learned, 0);
});
