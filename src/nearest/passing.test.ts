import assert from 'node:assert/strict';
import { test } from 'node:test';
import { captureLog } from '../../test/support/log.ts';
import type { BlobSource } from '../download/source.ts';
import { readAll } from '../io/body.ts';
import { digestOf } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import { createPassing } from './passing.ts';

const BYTES = Buffer.from('the bytes of a blob');
const digest = digestOf(BYTES);
const size = BYTES.length;
const { log } = await captureLog();
const { signal } = new AbortController();

interface Asked {
  source: string;
  start: number | undefined;
}

/** A source that sends `bytes`; `cutAt`: its connection ends there. `ignoresRanges`: it always sends
 *  all of them. */
function sourceOf(name: string, asked: Asked[], { bytes = BYTES, cutAt = Infinity, ignoresRanges = false } = {}): BlobSource {
  return {
    name: name === 's3' ? 'replica' : 'upstream',
    async open(range) {
      asked.push({ source: name, start: range?.start });
      const start = ignoresRanges ? 0 : (range?.start ?? 0);
      async function* body(): AsyncGenerator<Buffer> {
        for (let at = start; at < bytes.length; at++) {
          if (at === cutAt) throw new OciError('UNAVAILABLE', 'cut');
          yield bytes.subarray(at, at + 1);
        }
      }
      const isPart = range !== undefined && !ignoresRanges;
      return { digest, size, range: isPart ? { start, end: size - 1 } : undefined, body: body() };
    },
  };
}

for (const ignoresRanges of [false, true]) {
  test(`a blob that S3 cuts continues from the registry where it was${ignoresRanges ? ', even if that ignores ranges' : ''}`, async () => {
    const asked: Asked[] = [];
    const sources = [sourceOf('s3', asked, { cutAt: 7 }), sourceOf('registry', asked, { ignoresRanges })];
    const blob = createPassing(log).open({ digest, size }, sources, signal);
    assert.deepEqual(await readAll(blob.body, size), BYTES);
    assert.deepEqual(asked, [
      { source: 's3', start: undefined },
      { source: 'registry', start: 7 },
    ]);
  });
}

test('a blob that is requested again soon comes from the registry, which verifies it, and then from S3 again', async () => {
  const asked: Asked[] = [];
  const wrong = Buffer.from(BYTES).fill('x', 3);
  const passing = createPassing(log);
  const read = async (): Promise<Buffer | undefined> => {
    const sources = [sourceOf('s3', asked, { bytes: wrong }), sourceOf('registry', asked)];
    return readAll(passing.open({ digest, size }, sources, signal).body, size);
  };
  assert.deepEqual([await read(), await read(), await read()], [wrong, BYTES, wrong]);
  assert.deepEqual(
    asked.map(({ source }) => source),
    ['s3', 'registry', 's3'],
  );
});

test('a blob that its client left is read from S3 when it is requested again', async () => {
  const asked: Asked[] = [];
  const passing = createPassing(log);
  for (let count = 0; count < 2; count++) {
    const { body } = passing.open({ digest, size }, [sourceOf('s3', asked), sourceOf('registry', asked)], signal);
    for await (const _ of body) break;
  }
  assert.deepEqual(
    asked.map(({ source }) => source),
    ['s3', 's3'],
  );
});

test('a blob that no source has is an error, without further attempts', async () => {
  const asked: Asked[] = [];
  const absent: BlobSource = {
    name: 'upstream',
    open: async () => {
      asked.push({ source: 'registry', start: undefined });
      throw new OciError('BLOB_UNKNOWN', 'no such blob');
    },
  };
  const { body } = createPassing(log).open({ digest, size }, [sourceOf('s3', asked, { cutAt: 0 }), absent], signal);
  await assert.rejects(readAll(body, size), /no such blob/);
  assert.deepEqual(
    asked.map(({ source }) => source),
    ['s3', 'registry'],
  );
});
