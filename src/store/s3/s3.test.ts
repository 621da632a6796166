import { AbortMultipartUploadCommand, ListMultipartUploadsCommand, ListPartsCommand, S3Client } from '@aws-sdk/client-s3';
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, test } from 'node:test';
import { startFaultyProxy } from '../../../test/support/faulty-proxy.ts';
import { until } from '../../../test/support/until.ts';
import { startVersitygw } from '../../../test/support/versitygw.ts';
import { readAll } from '../../io/body.ts';
import { createRunningHash } from '../../io/running-hash.ts';
import { bytesSource, type Store, type StoreSource } from '../store.ts';
import { s3 } from './s3.ts';
import { storeConformance } from '../../testing/store-suite.ts';

const signal = new AbortController().signal;
const server = await startVersitygw();
const { endpoint, region, accessKeyId, secretAccessKey } = server;
const OPTIONS = { region, endpoint, forcePathStyle: true, createBucket: false, prefix: 'some/prefix/' };
const PART = 5 * 2 ** 20;
let buckets = 0;

after(() => server[Symbol.asyncDispose]());

storeConformance('s3', async () => {
  const store = s3({
    ...OPTIONS,
    bucket: `conformance-${buckets++}`,
    createBucket: true,
    credentials: () => Promise.resolve({ accessKeyId, secretAccessKey }),
  });
  await store.prepare({ signal });
  return { store, [Symbol.asyncDispose]: () => store.close() };
});

test('a range of an object costs S3 one GET, whichever end the client left open', async () => {
  await using proxy = await startFaultyProxy(endpoint);
  const credentials = () => Promise.resolve({ accessKeyId, secretAccessKey });
  const store = s3({ ...OPTIONS, endpoint: proxy.url, bucket: server.bucket, credentials });
  await store.write('v1/x', bytesSource(Buffer.from('0123456789')), { signal });
  proxy.requests.length = 0;
  for (const [range, expected] of [
    [{ start: 2, end: 3 }, '23'],
    [{ start: 8 }, '89'],
    [{ start: 8, end: 100 }, '89'],
    [{ suffix: 3 }, '789'],
  ] as const) {
    const content = await store.read('v1/x', { signal, range });
    assert.equal(content?.size, 10);
    assert.equal(String(Buffer.concat(await Array.fromAsync(content.body))), expected);
  }
  await assert.rejects(store.read('v1/x', { signal, range: { start: 10 } }), { code: 'RANGE_INVALID', size: 10 });
  await store.close();
  assert.deepEqual(
    proxy.requests.map((request) => request.split(' ')[0]),
    ['GET', 'GET', 'GET', 'GET', 'GET'],
  );
});

test('an object is written beside the removal of the last one in its folder', async () => {
  const store = s3({ ...OPTIONS, bucket: server.bucket, credentials: () => Promise.resolve({ accessKeyId, secretAccessKey }) });
  const keyOf = (index: number): string => `v1/uploads/local/a/_${index}/start`;
  const write = (index: number): Promise<void> => store.write(keyOf(index), bytesSource(new Uint8Array()), { signal });
  await write(0);
  // versitygw answered about one of 30 with 409: the folder is removed at the same moment.
  for (let index = 1; index <= 100; index++) await Promise.all([store.remove(keyOf(index - 1), { signal }), write(index)]);
  await store.close();
});

test('an upload that S3 ends before its last part, as a lifecycle rule does, is made again', async () => {
  const credentials = () => Promise.resolve({ accessKeyId, secretAccessKey });
  const store = s3({ ...OPTIONS, bucket: server.bucket, credentials, partSize: PART });
  const client = new S3Client({ region, endpoint, forcePathStyle: true, credentials: { accessKeyId, secretAccessKey } });
  const bytes = randomBytes(2 * PART + 1000);
  const plain = bytesSource(bytes);
  let ended = 0;
  async function endUploads(): Promise<void> {
    const { Uploads = [] } = await client.send(new ListMultipartUploadsCommand({ Bucket: server.bucket }));
    for (const { Key, UploadId } of Uploads) {
      const upload = { Bucket: server.bucket, Key, UploadId };
      await until(async () => ((await client.send(new ListPartsCommand(upload))).Parts ?? []).length > 0, 'a part has arrived');
      await client.send(new AbortMultipartUploadCommand(upload));
      ended++;
    }
  }
  const source: StoreSource = {
    size: bytes.length,
    async open(context) {
      if (context.range?.start === 2 * PART && ended === 0) await endUploads();
      return plain.open(context);
    },
  };
  await store.write('v1/ended', source, { signal });
  assert.equal(ended, 1);
  assert.ok((await contentOf(store, 'v1/ended')).equals(bytes));

  // A stream cannot be sent again: its writer learns that it may try later, and nothing is stored.
  async function* endless() {
    yield [bytes];
    yield [bytes];
    await endUploads();
    yield [bytes];
  }
  await assert.rejects(store.writeStream('v1/stream', endless(), { signal, hash: createRunningHash('sha256') }), {
    code: 'UNAVAILABLE',
    retryAfter: 5,
  });
  assert.equal(await store.stat('v1/stream', { signal }), undefined);
  const { Uploads = [] } = await client.send(new ListMultipartUploadsCommand({ Bucket: server.bucket }));
  assert.deepEqual(Uploads, [], 'no upload is left');
  client.destroy();
  await store.close();
});

async function contentOf(store: Store, key: string): Promise<Buffer> {
  const found = (await store.read(key, { signal })) ?? assert.fail(`${key} is stored`);
  return (await readAll(found.body, found.size)) ?? assert.fail();
}

const EVER = new Promise<never>(() => undefined);

test('a silent credentials service delays no request for longer than an answer may take', async () => {
  const store = s3({ ...OPTIONS, bucket: 'none', credentials: () => EVER });
  const refused = { code: 'UNAVAILABLE' };
  await assert.rejects(store.stat('v1/x', { signal, within: 100 }), refused);
  await store.close();
  const other = s3({ ...OPTIONS, bucket: 'none', credentials: () => EVER });
  await assert.rejects(other.read('v1/x', { signal, within: 100 }), refused);
  await other.close();
  const left = s3({ ...OPTIONS, bucket: 'none', credentials: () => EVER });
  await assert.rejects(left.stat('v1/x', { signal: AbortSignal.timeout(100) }), { name: 'TimeoutError' });
  await left.close();
});

test('a signed URL ends with the session that it was signed by', async () => {
  const expiration = new Date(Date.now() + 600_000);
  // oxlint-disable-next-line node/no-process-env -- the SDK's own chain reads it
  Object.assign(process.env, {
    AWS_ACCESS_KEY_ID: accessKeyId,
    AWS_SECRET_ACCESS_KEY: secretAccessKey,
    AWS_CREDENTIAL_EXPIRATION: expiration.toISOString(),
  });
  const store = s3({ ...OPTIONS, bucket: 'none' });
  assert.equal((await store.presign('v1/x', 900_000)).until, expiration.getTime());
  assert.ok((await store.presign('v1/x', 60_000)).until < expiration.getTime());
  await store.close();
});

test('an S3 that answers a range request with the whole object is handled correctly', async () => {
  let chunked = false;
  const whole = createServer((_request, response) => {
    response.setHeader('etag', '"x"');
    if (chunked) response.flushHeaders();
    response.end('all of it');
  });
  await new Promise<void>((resolve) => whole.listen(0, '127.0.0.1', resolve));
  const port = (whole.address() as AddressInfo).port;
  const credentials = () => Promise.resolve({ accessKeyId, secretAccessKey });
  const store = s3({ ...OPTIONS, endpoint: `http://127.0.0.1:${port}`, bucket: 'none', credentials });
  await assert.rejects(store.read('v1/x', { signal, range: { start: 4, end: 5 } }), { code: 'UNAVAILABLE', origin: 'storage' });
  for (const range of [undefined, { start: 0, end: 8 }, { start: 0 }, { start: 0, end: 99 }, { suffix: 9 }]) {
    const content = await store.read('v1/x', range === undefined ? { signal } : { signal, range });
    assert.equal(String(Buffer.concat(await Array.fromAsync(content?.body ?? []))), 'all of it');
  }
  await assert.rejects(store.read('v1/x', { signal, range: { start: 10 } }), { code: 'RANGE_INVALID', size: 9 });
  chunked = true;
  await assert.rejects(store.read('v1/x', { signal, range: { start: 0, end: 8 } }), { code: 'UNAVAILABLE', origin: 'storage' });
  await store.close();
  whole.closeAllConnections();
  await new Promise((resolve) => whole.close(resolve));
});
