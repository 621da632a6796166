import assert from 'node:assert/strict';
import type { ServerResponse } from 'node:http';
import { describe, test } from 'node:test';
import { captureLog } from '../../../test/support/log.ts';
import { openS3 } from '../../../test/support/open-s3.ts';
import { html, s3Error, startScriptedS3, xml, type Answer } from '../../../test/support/scripted-s3.ts';
import { keysOf } from '../../testing/store-suite.ts';
import { bytesSource } from '../store.ts';
import type { S3Store } from './options.ts';

// Responses seen from S3 servers and from servers in front of them.

const signal = AbortSignal.timeout(120_000);
const content = Buffer.from('content');

const plainText: Answer = (response) => response.writeHead(404, { 'content-type': 'text/plain' }).end('default backend - 404');
const bare =
  (status: number): Answer =>
  (response) =>
    response.writeHead(status, { 'content-length': '0' }).end();

void describe("an answer that is not S3's own", () => {
  const answers: Record<string, Answer> = {
    'a 404 page of an ingress (ingress-nginx)': html(404),
    'a 404 in plain text of an ingress (Kubernetes default backend)': plainText,
    'a 404 without a body': bare(404),
    'a 404 of S3 that is about the keys (versitygw 1.8.0)': s3Error(404, 'XAdminUserNotFound'),
    'a login page with 200': html(200),
    'a 502 page': html(502),
  };
  for (const [name, answer] of Object.entries(answers)) {
    void test(`${name} is an outage: nothing is absent, stored, listed or removed by it`, async () => {
      await using server = await startScriptedS3();
      server.behave = () => answer;
      const calls: Record<string, (store: S3Store) => Promise<unknown>> = {
        read: (store) => store.read('v1/object', { signal }),
        list: (store) => keysOf(store, 'v1/'),
        write: (store) => store.write('v1/object', bytesSource(content), { signal }),
        prepare: (store) => store.prepare({ signal }),
        ...(name.includes('about the keys') ? {} : { stat: (store: S3Store) => store.stat('v1/object', { signal }) }),
        remove: (store) => store.remove('v1/object', { signal }),
      };
      for (const [call, run] of Object.entries(calls)) {
        const store = openS3(server, { createBucket: true });
        await assert.rejects(run(store), { code: 'UNAVAILABLE', origin: 'storage' }, call);
        await store.close();
      }
    });
  }

  void test("is distinguished from S3's own by the request ID, the XML document or, after a HEAD, by a GET", async () => {
    await using server = await startScriptedS3();
    const store = openS3(server);
    server.behave = ({ method }) => (method === 'HEAD' ? bare(404) : undefined);
    assert.equal(await store.stat('v1/object', { signal }), undefined);
    assert.deepEqual(
      server.requests.map(({ method }) => method),
      ['HEAD', 'GET'],
    );
    server.behave = ({ method }) =>
      method === 'HEAD' ? (response) => response.writeHead(404, { 'x-amz-request-id': '1' }).end() : undefined;
    server.requests.length = 0;
    assert.equal(await store.stat('v1/object', { signal }), undefined);
    assert.deepEqual(
      server.requests.map(({ method }) => method),
      ['HEAD'],
    );
    await store.close();
  });
});

void describe('a page of a listing', () => {
  const entry = (key: string, rest = '<Size>1</Size><LastModified>2026-01-01T00:00:00Z</LastModified>') =>
    `<Contents><Key>${key}</Key>${rest}</Contents>`;
  const page = (inner: string, truncated = 'false') =>
    xml(200, `<ListBucketResult><IsTruncated>${truncated}</IsTruncated>${inner}</ListBucketResult>`);
  const unexplained: Record<string, Answer> = {
    'with nothing in it': xml(200, ''),
    'that is no listing': xml(200, '<Html><Body/></Html>'),
    'that does not say whether more follow': xml(200, `<ListBucketResult>${entry('v1/a')}</ListBucketResult>`),
    'that was cut': (response) => {
      response.writeHead(200, { 'content-length': '1000' });
      response.write('<ListBucketResult><IsTruncated>false', () => response.destroy());
    },
    'that was cut and ends as if it were whole': xml(
      200,
      `<ListBucketResult><IsTruncated>true</IsTruncated>${entry('v1/a')}<Contents><Key>v1`,
    ),
    'with fewer keys than it says': page(`<KeyCount>2</KeyCount>${entry('v1/a')}`),
    'of another prefix': page(`<Prefix>v2/</Prefix>`),
    'with a key of another prefix': page(entry('v2/a')),
    'with keys out of order': page(entry('v1/b') + entry('v1/a')),
    'with an entry without a date': page(entry('v1/a', '<Size>1</Size>')),
    'with an entry without a size': page(entry('v1/a', '<LastModified>2026-01-01T00:00:00Z</LastModified>')),
    'without keys that says that more follow and not where': page('', 'true'),
    'without keys that leads to itself': page('<NextContinuationToken>more</NextContinuationToken>', 'true'),
  };
  for (const [name, answer] of Object.entries(unexplained)) {
    void test(`${name} ends the listing with an error`, async () => {
      await using server = await startScriptedS3();
      server.behave = ({ query }) => (query.has('list-type') ? answer : undefined);
      const store = openS3(server);
      await assert.rejects(keysOf(store, 'v1/'), { code: 'UNAVAILABLE', origin: 'storage' });
      await store.close();
    });
  }

  void test('without keys leads on to the next, as over many delete markers', async () => {
    await using server = await startScriptedS3();
    server.objects.set('v1/a', { bytes: content, modified: new Date() });
    const token = (name: string) => page(`<NextContinuationToken>${name}</NextContinuationToken>`, 'true');
    server.behave = ({ query }) => {
      if (!query.has('list-type')) return undefined;
      if (query.get('continuation-token') === 'two') return undefined;
      return token(query.get('continuation-token') === 'one' ? 'two' : 'one');
    };
    const store = openS3(server);
    assert.deepEqual(await keysOf(store, 'v1/'), ['v1/a']);
    assert.equal(server.requests.length, 3);
    await store.close();
  });

  void test('that leaves keys out and says that more follow loses none of them', async () => {
    await using server = await startScriptedS3();
    const keys = Array.from({ length: 10 }, (_, index) => `v1/${index}`);
    for (const key of keys) server.objects.set(key, { bytes: content, modified: new Date() });
    let first = true;
    server.behave = ({ query }) => {
      if (!query.has('list-type') || !first) return undefined;
      first = false;
      return page(
        `${keys
          .slice(0, 3)
          .map((key) => entry(key))
          .join('')}<NextContinuationToken>behind-six</NextContinuationToken>`,
        'true',
      );
    };
    const store = openS3(server);
    assert.deepEqual(await keysOf(store, 'v1/'), keys);
    await store.close();
  });
});

void describe('a call that fails', () => {
  const reset: Answer = (response) => void response.socket?.destroy();

  void test('because its connection was reset is made again at once, and pauses nothing', async () => {
    await using server = await startScriptedS3();
    const store = openS3(server);
    for (const method of ['PUT', 'GET', 'HEAD', 'DELETE']) {
      let resets = 0;
      server.behave = (request) => (request.method === method && resets++ < 2 ? reset : undefined);
      await store.write('v1/object', bytesSource(content), { signal });
      assert.equal((await store.stat('v1/object', { signal }))?.size, content.length);
      const found = await store.read('v1/object', { signal });
      assert.deepEqual(Buffer.concat(await Array.fromAsync(found?.body ?? [])), content);
      await store.remove('v1/object', { signal });
      assert.ok(resets >= 3, method);
    }
    await store.close();
  });

  void test('again and again, with any answer or none, does not pause the others', async () => {
    await using server = await startScriptedS3();
    const store = openS3(server);
    for (const answer of [reset, s3Error(500, 'InternalError'), s3Error(503, 'SlowDown'), s3Error(403, 'AccessDenied'), html(502)]) {
      server.behave = ({ key }) => (key === 'v1/bad' ? answer : undefined);
      for (let round = 0; round < 3; round++) await assert.rejects(store.read('v1/bad', { signal }), { code: 'UNAVAILABLE' });
      assert.equal(await store.read('v1/good', { signal }), undefined);
    }
    await store.close();
  });

  void test('without an answer pauses only calls of its own kind: reads continue while writes wait', async () => {
    await using server = await startScriptedS3();
    const store = openS3(server);
    server.behave = ({ method }) => (method === 'DELETE' ? () => undefined : undefined);
    await assert.rejects(store.remove('v1/object', { signal: AbortSignal.timeout(300) }), { name: 'TimeoutError' });
    await assert.rejects(store.write('v1/object', bytesSource(content), { signal }), /did not answer a moment ago/);
    assert.equal(await store.read('v1/object', { signal }), undefined);
    await store.close();
  });
});

void describe('a region', () => {
  void test('that S3 corrects is used from then on', async () => {
    await using server = await startScriptedS3();
    server.behave = ({ headers }) =>
      headers.authorization?.includes('/eu-central-1/s3/') === true
        ? undefined
        : s3Error(400, 'AuthorizationHeaderMalformed', { headers: { 'x-amz-bucket-region': 'eu-central-1' } });
    const { log, entries } = await captureLog();
    const store = openS3(server, { log });
    await store.write('v1/object', bytesSource(content), { signal });
    server.requests.length = 0;
    assert.equal((await store.stat('v1/object', { signal }))?.size, content.length);
    assert.equal(server.requests.length, 1);
    assert.deepEqual(
      entries().map(({ event }) => event),
      ['s3-region-corrected'],
    );
    await store.close();
  });
});

void describe('preparing a bucket', () => {
  void test('that another replica makes at the same moment succeeds', async () => {
    await using server = await startScriptedS3();
    let made = false;
    server.behave = ({ method, key }) => {
      if (key !== '' || made) return undefined;
      if (method !== 'PUT') return s3Error(404, 'NoSuchBucket');
      made = true;
      return s3Error(409, 'BucketAlreadyOwnedByYou');
    };
    const store = openS3(server, { createBucket: true });
    await store.prepare({ signal });
    assert.ok(made);
    await store.close();
  });

  void test('continues if listing uploads is refused, and logs that once', async () => {
    for (const refusal of [s3Error(501, 'NotImplemented'), s3Error(403, 'AccessDenied')]) {
      await using server = await startScriptedS3();
      server.behave = ({ query }) => (query.has('uploads') ? refusal : undefined);
      const { log, entries } = await captureLog();
      const store = openS3(server, { log });
      await store.prepare({ signal });
      await store.prepare({ signal });
      assert.deepEqual(
        entries().map(({ event, level }) => [event, level]),
        [['s3-uploads-not-listed', 'info']],
      );
      await store.close();
    }
  });

  void test('that keeps versions warns, and what is removed leaves no version where that is allowed', async () => {
    await using server = await startScriptedS3();
    const removed: string[] = [];
    let isAllowed = true;
    server.behave = ({ method, query, key }) => {
      if (query.has('versioning')) return xml(200, '<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>');
      if (query.has('versions')) {
        const version = (id: string, isLatest: boolean) =>
          `<Key>v1/object</Key><VersionId>${id}</VersionId><IsLatest>${isLatest}</IsLatest>`;
        return isAllowed
          ? xml(
              200,
              `<ListVersionsResult><IsTruncated>false</IsTruncated><DeleteMarker>${version('marker', true)}</DeleteMarker><Version>${version('old', false)}</Version></ListVersionsResult>`,
            )
          : s3Error(403, 'AccessDenied');
      }
      if (method !== 'DELETE') return undefined;
      removed.push(`${key}?${query.get('versionId') ?? ''}`);
      return (response) => response.writeHead(204, query.has('versionId') ? {} : { 'x-amz-delete-marker': 'true' }).end();
    };
    const { log, entries } = await captureLog();
    const store = openS3(server, { log });
    await store.prepare({ signal });
    await store.remove('v1/object', { signal });
    assert.deepEqual(removed.sort(), ['v1/object?', 'v1/object?marker', 'v1/object?old']);
    isAllowed = false;
    await store.remove('v1/object', { signal });
    await store.remove('v1/object', { signal });
    assert.deepEqual(
      entries().map(({ event }) => event),
      ['s3-bucket-versioned', 's3-versions-kept'],
    );
    await store.close();
  });
});

void describe('an answer without Content-Length', () => {
  const chunked = (response: ServerResponse): void => {
    response.writeHead(200, { 'last-modified': new Date().toUTCString(), 'transfer-encoding': 'chunked' });
    response.write(content.subarray(0, 3));
    response.end(content.subarray(3));
  };

  void test('is read completely, with the size from a HEAD; without a size it is refused, and never treated as an empty object', async () => {
    await using server = await startScriptedS3();
    server.objects.set('v1/object', { bytes: content, modified: new Date() });
    server.behave = ({ method, headers }) => (method === 'GET' && headers.range === undefined ? chunked : undefined);
    const store = openS3(server);
    const found = await store.read('v1/object', { signal });
    assert.equal(found?.size, content.length);
    assert.deepEqual(Buffer.concat(await Array.fromAsync(found.body)), content);
    server.behave = () => chunked;
    await assert.rejects(store.read('v1/object', { signal }), { code: 'UNAVAILABLE', origin: 'storage' });
    await assert.rejects(store.stat('v1/object', { signal }), { code: 'UNAVAILABLE', origin: 'storage' });
    await store.close();
  });
});

void describe('a prefix', () => {
  void test('is a path, however its slashes were written', async () => {
    for (const [prefix, expected] of [
      ['', 'v1/object'],
      ['team', 'team/v1/object'],
      ['team/', 'team/v1/object'],
      ['/team//one/', 'team/one/v1/object'],
    ] as const) {
      await using server = await startScriptedS3();
      const store = openS3(server, { prefix });
      await store.write('v1/object', bytesSource(content), { signal });
      assert.deepEqual([...server.objects.keys()], [expected]);
      assert.deepEqual(await keysOf(store, 'v1/'), ['v1/object']);
      await store.close();
    }
  });

  void test('under which a former release has stored without a slash is kept', async () => {
    await using server = await startScriptedS3();
    server.objects.set('teamv1/object', { bytes: content, modified: new Date() });
    const store = openS3(server, { prefix: 'team' });
    assert.deepEqual(await keysOf(store, 'v1/'), ['v1/object']);
    await store.write('v1/other', bytesSource(content), { signal });
    assert.deepEqual([...server.objects.keys()], ['teamv1/object', 'teamv1/other']);
    await store.close();
  });
});
