import assert from 'node:assert/strict';
import { after, beforeEach, test } from 'node:test';
import { captureLog } from '../../../test/support/log.ts';
import { until } from '../../../test/support/until.ts';
import { startTap } from '../../../test/support/tap.ts';
import { startVersitygw } from '../../../test/support/versitygw.ts';
import { digestOf, type Digest } from '../../oci/digest.ts';
import { blobKey } from '../keys.ts';
import { observeStores } from '../observed.ts';
import type { S3Store } from './options.ts';
import { s3 } from './s3.ts';
import { bytesSource } from '../store.ts';
import { createRedirects, type Redirect } from './redirects.ts';

const TTL = 60_000;
const server = await startVersitygw();
const tap = await startTap(server.endpoint);
after(async () => {
  await tap[Symbol.asyncDispose]();
  await server[Symbol.asyncDispose]();
});
beforeEach(() => void (tap.requests.length = 0));
const { signal } = new AbortController();
const heads = () => tap.requests.filter(({ method }) => method === 'HEAD').length;
const bytesOf = (name: string) => Buffer.from(`the blob ${name}`);
const blob = (name: string): Digest => digestOf(bytesOf(name));

interface Opened extends AsyncDisposable {
  store: S3Store;
  redirect: Redirect;
  /** Messages of the log. */
  told(): unknown[];
}

/** Redirects to an S3 behind the tap, with these blobs in it. */
async function open(names: readonly string[], secret = () => server.secretAccessKey): Promise<Opened> {
  const { bucket, region, accessKeyId } = server;
  const captured = await captureLog();
  const credentials = () => Promise.resolve({ accessKeyId, secretAccessKey: secret() });
  const inner = s3({ bucket, region, credentials, endpoint: tap.url, forcePathStyle: true, createBucket: false, prefix: 'a/b' });
  const store = observeStores({ log: captured.log, failed: () => undefined })(inner);
  for (const name of names) await store.write(blobKey(blob(name)), bytesSource(bytesOf(name)), { signal });
  return {
    store,
    redirect: createRedirects(store, TTL),
    told: () => captured.entries().map(({ msg }) => msg),
    [Symbol.asyncDispose]: () => store.close(),
  };
}

test('a blob is redirected to a URL that serves it; a blob that S3 lacks is not redirected', async () => {
  await using opened = await open(['there']);
  const url = (await opened.redirect(blob('there'), signal))?.url;
  assert.equal(await (await fetch(url ?? '')).text(), String(bytesOf('there')));
  assert.equal((await opened.redirect(blob('there'), signal))?.size, bytesOf('there').length, 'the size reveals a damaged blob');
  assert.equal(await opened.redirect(blob('not there'), signal), undefined);
  assert.deepEqual(opened.told(), []);
});

test('S3 is checked for each client, but once for concurrent requests for the same blob, or for blobs that it has just confirmed', async () => {
  const names = ['one', 'two', 'three'];
  await using opened = await open(names);
  const ask = (names: readonly string[]) => Promise.all(names.map((name) => opened.redirect(blob(name), signal)));
  await ask(['one', 'one', 'one']);
  assert.equal(heads(), 1);
  await ask(names);
  assert.equal(heads(), 4, 'the others are not known yet');
  const urls = await ask([...names, ...names, 'unknown']);
  assert.equal(heads(), 6, 'one for those that are known, one for the unknown one');
  assert.equal(urls.at(-1), undefined);
  for (const [index, name] of names.entries()) assert.equal(await (await fetch(urls[index]?.url ?? '')).text(), String(bytesOf(name)));
  await ask(['one']);
  await ask(['one']);
  assert.equal(heads(), 8, 'later clients wait for answers of their own');
});

test('a blob that was removed from S3 is no longer redirected once its own check has shown that; other blobs still are', async () => {
  await using opened = await open(['leaves', 'stays']);
  for (const name of ['leaves', 'stays']) assert.notEqual(await opened.redirect(blob(name), signal), undefined);
  await opened.store.remove(blobKey(blob('leaves')), { signal });
  const [left, stayed] = await Promise.all(['leaves', 'stays'].map((name) => opened.redirect(blob(name), signal)));
  assert.equal(left, undefined);
  assert.notEqual(stayed, undefined);
  const before = heads();
  assert.deepEqual(await Promise.all(['stays', 'leaves'].map(async (name) => (await opened.redirect(blob(name), signal)) !== undefined)), [
    true,
    false,
  ]);
  assert.equal(heads(), before + 2, 'it no longer counts as known');
});

test('no client is redirected to an S3 that is down or hangs, not even for blobs it has just confirmed; the log says so', async () => {
  await using opened = await open(['one', 'two']);
  const both = () => Promise.all(['one', 'two'].map((name) => opened.redirect(blob(name), signal)));
  const works = () => until(async () => !(await both()).includes(undefined), 'S3 is used again');
  await works();
  await server.stop();
  assert.deepEqual(await both(), [undefined, undefined]);
  await server.start();
  await works();
  await server.halt();
  try {
    assert.deepEqual(await both(), [undefined, undefined]);
  } finally {
    server.resume();
  }
  await works();
  const [fails, worksAgain] = ['calls to the storage fail; serving pulls from upstream and from local copies', 'the storage works again'];
  assert.deepEqual(opened.told(), [fails, worksAgain, fails, worksAgain]);
});

test('URLs signed with a key that S3 refuses are not reused', async () => {
  let secret = server.secretAccessKey;
  await using opened = await open(['signed'], () => secret);
  secret = 'another';
  assert.equal(await opened.redirect(blob('signed'), signal), undefined);
  secret = server.secretAccessKey;
  assert.notEqual(await opened.redirect(blob('signed'), signal), undefined);
});

test('no request waits long for credentials that do not arrive', async () => {
  const { bucket, region } = server;
  const credentials = () => new Promise<never>(() => undefined);
  await using stack = new AsyncDisposableStack();
  const store = s3({ bucket, region, credentials, endpoint: tap.url, forcePathStyle: true, createBucket: false, prefix: '' });
  stack.defer(() => store.close());
  assert.equal(await createRedirects(store, TTL)(blob('one'), signal), undefined);
});
