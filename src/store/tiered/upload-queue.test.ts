import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { captureLog } from '../../../test/support/log.ts';
import { temporaryDirectory } from '../../../test/support/temporary.ts';
import { until } from '../../../test/support/until.ts';
import { digestOf } from '../../oci/digest.ts';
import { filesystem } from '../filesystem/filesystem.ts';
import { blobKey } from '../keys.ts';
import { localTier } from './local-tier.ts';
import { memory } from '../../testing/memory-store.ts';
import { bytesSource } from '../store.ts';
import { OciError } from '../../oci/error.ts';
import { createUploads } from './upload-queue.ts';

test('a blob that another replica is expected to upload is uploaded here only if that has not happened after a while', async () => {
  await using temporary = await temporaryDirectory();
  const files = await filesystem({ directory: temporary.path });
  const signal = AbortSignal.timeout(30_000);
  const tier = localTier(files, 1024 * 1024, () => undefined);
  const remote = memory();
  let writes = 0;
  const counted = { ...remote, write: (...args: Parameters<typeof remote.write>) => (writes++, remote.write(...args)) };
  const { log } = await captureLog();
  const uploads = await createUploads({ files, tier, remote: counted, log, observe: { uploadQueue: () => undefined } });
  const blobs = ['stored there', 'lost there'].map((text) => Buffer.from(text));
  const keys = blobs.map((bytes) => blobKey(digestOf(bytes)));
  for (const [index, bytes] of blobs.entries()) {
    await tier.write(keys[index] ?? '', bytesSource(bytes), { signal });
    uploads.enqueue(keys[index] ?? '', bytes.length, 1000);
  }
  await remote.write(keys[0] ?? '', bytesSource(blobs[0] ?? Buffer.alloc(0)), { signal });
  await delay(200);
  assert.equal(writes, 0, 'that upload is not due yet');
  await until(async () => (await remote.stat(keys[1] ?? '', { signal })) !== undefined, 'the missing blob is stored');
  await uploads.close(signal);
  assert.equal(writes, 1, 'missing blobs are stored, and present ones are not sent again');
  assert.ok(await remote.stat(keys[1] ?? '', { signal }));
  await files.close();
});

test('a blob that the storage refuses for its digest leaves the queue, and a damaged local copy goes', async () => {
  await using temporary = await temporaryDirectory();
  const files = await filesystem({ directory: temporary.path });
  const signal = AbortSignal.timeout(30_000);
  const tier = localTier(files, 1024 * 1024, () => undefined);
  const refusal = new OciError('DIGEST_INVALID', 'S3 refuses writing: 400 BadDigest', { origin: 'storage' });
  const remote = { ...memory(), write: () => Promise.reject(refusal) };
  const captured = await captureLog();
  const uploads = await createUploads({ files, tier, remote, log: captured.log, observe: { uploadQueue: () => undefined } });
  const damaged = blobKey(digestOf(Buffer.from('what it was')));
  const intact = blobKey(digestOf(Buffer.from('as it is')));
  await tier.write(damaged, bytesSource(Buffer.from('what came of it')), { signal });
  await tier.write(intact, bytesSource(Buffer.from('as it is')), { signal });
  uploads.enqueue(damaged, 15);
  uploads.enqueue(intact, 8);
  for (let tries = 0; tries < 500 && uploads.pending() > 0; tries++) await delay(20);
  assert.equal(uploads.pending(), 0);
  assert.equal(await files.stat(damaged, { signal }), undefined, 'the next pull downloads it again');
  assert.ok(await files.stat(intact, { signal }), 'right bytes can be served');
  for await (const { key } of files.list('v1/pending/', { signal })) assert.fail(`${key} would be tried again after a restart`);
  await uploads.close(signal);
  await files.close();
});
