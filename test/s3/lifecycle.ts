import {
  DeleteBucketLifecycleCommand,
  ListMultipartUploadsCommand,
  PutBucketLifecycleConfigurationCommand,
  S3Client,
} from '@aws-sdk/client-s3';
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, test } from 'node:test';
import { readAll } from '../../src/io/body.ts';
import { createRunningHash } from '../../src/io/running-hash.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { blobKey } from '../../src/store/keys.ts';
import { s3 } from '../../src/store/s3/s3.ts';
import { bytesSource, type StoreSource } from '../../src/store/store.ts';
import { until } from '../support/until.ts';
import type { S3Server } from './gofakes3.ts';
import { startCeph } from './s3-servers.ts';

// Part of npm run test:s3. Of the S3 servers that the tests start, only Ceph carries lifecycle rules out.

const BUCKET = 'lifecycle';
const PART = 5 * 2 ** 20;
const signal = AbortSignal.timeout(600_000);
const bytes = randomBytes(2 * PART + 1000);
const key = blobKey(digestOf(bytes));
let server: S3Server;
let client: S3Client;

before(async () => {
  server = await startCeph();
  const { endpoint, region, accessKeyId, secretAccessKey } = server;
  client = new S3Client({ region, endpoint, forcePathStyle: true, credentials: { accessKeyId, secretAccessKey } });
});
after(async () => {
  client.destroy();
  await server[Symbol.asyncDispose]();
});

/** A store over the bucket, which gets a rule that ends each unfinished upload after a day. */
async function openStore() {
  const { endpoint, region, accessKeyId, secretAccessKey } = server;
  const credentials = () => Promise.resolve({ accessKeyId, secretAccessKey });
  const options = { bucket: BUCKET, region, endpoint, forcePathStyle: true, createBucket: true, prefix: '', credentials };
  const store = s3({ ...options, partSize: PART });
  await store.prepare({ signal });
  const AbortIncompleteMultipartUpload = { DaysAfterInitiation: 1 };
  const rule = { ID: 'unfinished', Status: 'Enabled', Filter: { Prefix: '' }, AbortIncompleteMultipartUpload } as const;
  await client.send(new PutBucketLifecycleConfigurationCommand({ Bucket: BUCKET, LifecycleConfiguration: { Rules: [rule] } }));
  return { ...store, [Symbol.asyncDispose]: () => store.close() };
}

/** Waits until the rule has ended all uploads, and removes it: the next upload is not hurried. */
async function letTheRuleAct(): Promise<void> {
  const uploads = async () => (await client.send(new ListMultipartUploadsCommand({ Bucket: BUCKET }))).Uploads ?? [];
  assert.notEqual((await uploads()).length, 0, 'there is an upload to end');
  await until(async () => (await uploads()).length === 0, 'the rule has ended the upload', 120_000);
  await client.send(new DeleteBucketLifecycleCommand({ Bucket: BUCKET }));
}

test('promise 14: a blob whose upload a lifecycle rule ends half way is uploaded again, and is whole', async () => {
  await using store = await openStore();
  const plain = bytesSource(bytes);
  let opened = 0;
  const slow: StoreSource = {
    size: bytes.length,
    async open(context) {
      if (++opened === 3) await letTheRuleAct();
      return plain.open(context);
    },
  };
  await store.write(key, slow, { signal });
  assert.equal(opened, 6, 'each of three parts was sent twice');
  const found = (await store.read(key, { signal })) ?? assert.fail();
  assert.ok((await readAll(found.body, found.size))?.equals(bytes));
  await store.remove(key, { signal });
});

test('promise 22: a push whose upload a lifecycle rule ends half way fails as a whole, may be repeated, and succeeds then', async () => {
  await using store = await openStore();
  async function* slow() {
    yield [bytes.subarray(0, PART)];
    yield [bytes.subarray(PART, 2 * PART)];
    await letTheRuleAct();
    yield [bytes.subarray(2 * PART)];
  }
  await assert.rejects(store.writeStream(key, slow(), { signal, hash: createRunningHash('sha256') }), {
    code: 'UNAVAILABLE',
    retryAfter: 5,
  });
  assert.equal(await store.stat(key, { signal }), undefined, 'nothing of it is visible');
  async function* whole() {
    yield [Buffer.from(bytes)]; // the store frees it
  }
  assert.equal(await store.writeStream(key, whole(), { signal, hash: createRunningHash('sha256') }), bytes.length);
});
