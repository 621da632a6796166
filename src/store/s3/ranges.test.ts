import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { startTap } from '../../../test/support/tap.ts';
import { startVersitygw } from '../../../test/support/versitygw.ts';
import { readAll } from '../../io/body.ts';
import { digestOf } from '../../oci/digest.ts';
import type { RangeRequest } from '../../oci/range.ts';
import { blobKey } from '../keys.ts';
import { bytesSource } from '../store.ts';
import { s3 } from './s3.ts';

const server = await startVersitygw();
const tap = await startTap(server.endpoint);
after(async () => {
  await tap[Symbol.asyncDispose]();
  await server[Symbol.asyncDispose]();
});

test('a range is read by one GET, whose response contains the size of the object, without a HEAD before it', async () => {
  const { bucket, region, accessKeyId, secretAccessKey } = server;
  const credentials = () => Promise.resolve({ accessKeyId, secretAccessKey });
  const store = s3({ bucket, region, credentials, endpoint: tap.url, forcePathStyle: true, createBucket: false, prefix: '' });
  try {
    const { signal } = new AbortController();
    const bytes = Buffer.from('0123456789'.repeat(1000));
    const key = blobKey(digestOf(bytes));
    await store.write(key, bytesSource(bytes), { signal });
    const ranges: [RangeRequest, Buffer][] = [
      [{ start: 5, end: 14 }, bytes.subarray(5, 15)],
      [{ start: 9_990, end: undefined }, bytes.subarray(9_990)],
      [{ suffix: 3 }, bytes.subarray(-3)],
    ];
    for (const [range, expected] of ranges) {
      tap.requests.length = 0;
      const found = (await store.read(key, { range, signal })) ?? assert.fail();
      assert.equal(found.size, bytes.length);
      assert.deepEqual(await readAll(found.body, bytes.length), expected);
      assert.deepEqual(
        tap.requests.map(({ method }) => method),
        ['GET'],
      );
    }
  } finally {
    await store.close();
  }
});
