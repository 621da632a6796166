import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { context, openUpstream, REPOSITORY, serveContent, startStub } from '../../test/support/stub-registry.ts';
import { isOciError } from '../oci/error.ts';
import { parseRepository, parseTag } from '../oci/reference.ts';
import { noRegistryMetrics } from '../telemetry/registry-metrics.ts';
import { createRateLimit } from './rate-limit.ts';
import { parseRetryAfter } from './retry-after.ts';

const tags = ['a', 'b', 'c', 'd', 'e'].map((text) => parseTag(text));
const open = (url: string) => openUpstream(url, { rateLimit: createRateLimit('hub', noRegistryMetrics) });

test('promise 9: after a 429, upstream receives one request per Retry-After, and callers get the remaining time', async () => {
  await using stub = await startStub((call) =>
    call.kind === 'manifests' ? call.refuse(429, 'slow down', { 'retry-after': '30' }) : serveContent(call),
  );
  const { registry } = open(stub.url);
  await assert.rejects(registry.manifest(REPOSITORY, parseTag('first'), context()), (error) => isOciError(error, 'TOOMANYREQUESTS'));
  await delay(1100);
  for (const tag of tags) {
    const isRest = (error: unknown) =>
      isOciError(error, 'TOOMANYREQUESTS') && error.retryAfter !== undefined && error.retryAfter < 30 && error.retryAfter > 20;
    await assert.rejects(registry.manifest(REPOSITORY, tag, context()), isRest);
    await assert.rejects(registry.resolve(parseRepository('acme/other'), tag, context()), isRest);
  }
  assert.equal(stub.calls.length, 1);
  assert.deepEqual(
    (await Array.fromAsync(registry.tags(REPOSITORY, context()))).flat(),
    ['1'],
    'other kinds of requests have limits of their own',
  );
});

test('promise 9: a short Retry-After is waited for, and one question alone finds out whether it is over', async () => {
  let refused = 2;
  await using stub = await startStub((call) => {
    const isRefused = refused-- > 0;
    setTimeout(() => (isRefused ? call.refuse(429, '', { 'retry-after': '1' }) : serveContent(call)), 100);
  });
  const { registry } = open(stub.url);
  await registry.manifest(REPOSITORY, parseTag('first'), context());
  assert.equal(stub.seen().length, 3);
  refused = 1;
  await Promise.all(
    tags.map(async (tag, index) => {
      await delay(index === 0 ? 0 : 150);
      await registry.manifest(REPOSITORY, tag, context());
    }),
  );
  assert.equal(stub.seen().length, 1 + tags.length, 'each was answered once, after one 429');
});

test('promise 9: neither of Docker Hub’s 429 is asked for again at once', async () => {
  // https://docs.docker.com/docker-hub/usage/: the pull limit answers in the specification's form,
  // the limit against abuse by a short text.
  const reached = { errors: [{ code: 'TOOMANYREQUESTS', message: 'You have reached your pull rate limit.' }] };
  const rows: [unknown, Record<string, string>, RegExp][] = [
    [reached, { 'ratelimit-limit': '100;w=21600', 'ratelimit-remaining': '0;w=21600' }, /You have reached your pull rate limit/],
    ['Too Many Requests', { 'content-type': 'text/plain', 'retry-after': '30' }, /./],
  ];
  for (const [body, headers, words] of rows) {
    await using hub = await startStub(({ send }) => send(429, body, headers));
    const { registry } = open(hub.url);
    await assert.rejects(
      registry.manifest(REPOSITORY, parseTag('1'), context()),
      (error) => isOciError(error, 'TOOMANYREQUESTS') && words.test(error.message),
    );
    assert.equal(hub.calls.length, 1);
  }
});

test('promise 9: a 429 without Retry-After is waited out, as public ECR sends it after one pull a second', async () => {
  // aws/aws-lambda-web-adapter issue 429: "Rate exceeded" for the manifest of a platform, after the
  // index.
  let last = -Infinity;
  await using ecr = await startStub((call) => {
    const now = performance.now();
    if (now - last < 900) return call.refuse(429, 'Rate exceeded');
    last = now;
    serveContent(call);
  });
  const { registry } = open(ecr.url);
  await Promise.all(tags.slice(0, 3).map((tag) => registry.manifest(REPOSITORY, tag, context())));
});

test('Retry-After is seconds or a date', () => {
  const inAMinute = new Date(Date.now() + 60_000).toUTCString();
  const rows: [string | string[] | undefined, number | undefined][] = [
    ['7', 7],
    ['0', 0],
    [' 1.5 ', 1.5],
    ['Sun, 06 Nov 1994 08:49:37 GMT', 0],
    ['Sunday, 06-Nov-94 08:49:37 GMT', 0],
    ['', undefined],
    ['soon', undefined],
    ['-1', undefined],
    [undefined, undefined],
    ['9'.repeat(40), 31_536_000],
  ];
  for (const [header, expected] of rows) assert.equal(parseRetryAfter(header), expected, String(header));
  const seconds = parseRetryAfter(inAMinute) ?? 0;
  assert.ok(seconds > 55 && seconds <= 60);
});
