import assert from 'node:assert/strict';
import { test } from 'node:test';
import { captureLog } from '../../test/support/log.ts';
import { parseDigest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import { createSourceList, PROVES_ACCESS, type BlobSource, type SourceName } from './source.ts';

const DIGEST = parseDigest(`sha256:${'0'.repeat(64)}`);
const lacksIt = (name: SourceName): BlobSource => ({ name, open: () => Promise.reject(new OciError('BLOB_UNKNOWN', 'not here')) });

const PENDING = Symbol('pending');
const settledNow = <Value>(promise: Promise<Value>): Promise<Value | typeof PENDING> =>
  Promise.race([promise, new Promise<typeof PENDING>((resolve) => void setImmediate(resolve, PENDING))]);

test('promise 12: a source whose response proves no access is not reported as the source of a blob before it has answered', async () => {
  const { log } = await captureLog();
  for (const name of Object.keys(PROVES_ACCESS) as SourceName[]) {
    const { located } = createSourceList({ digest: DIGEST, sources: [lacksIt(name)], expectedSize: undefined, log });
    assert.equal(await settledNow(located), PROVES_ACCESS[name] ? name : PENDING, name);
  }
});

test('promise 12: a blob in the storage, which holds the blobs of all repositories, does not prove access', async () => {
  const { log } = await captureLog();
  assert.equal(PROVES_ACCESS.storage, false);
  const sources = [lacksIt('storage'), lacksIt('upstream')];
  const list = createSourceList({ digest: DIGEST, sources, expectedSize: undefined, log });
  await assert.rejects(list.open(undefined, AbortSignal.timeout(5000)), { code: 'BLOB_UNKNOWN' });
  assert.equal(await list.located, 'upstream', 'the storage lacked the blob');
});
