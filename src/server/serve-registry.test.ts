import assert from 'node:assert/strict';
import { request } from 'node:http';
import { test } from 'node:test';
import { captureLog, type CapturedLog } from '../../test/support/log.ts';
import { openSilently } from '../../test/support/raw-http.ts';
import { until } from '../../test/support/until.ts';
import { OCI_INDEX } from '../oci/descriptor.ts';
import { digestOf, type Digest } from '../oci/digest.ts';
import { OciError, type OciErrorCode, type OciErrorOptions } from '../oci/error.ts';
import type { Registry } from '../oci/registry.ts';
import { createMemory } from '../testing/memory-registry.ts';
import { addSampleContent, sampleContent } from '../testing/sample-content.ts';
import { listen } from './listen.ts';
import { serveRegistry, type Served, type ServeOptions } from './serve-registry.ts';

const content = sampleContent();
const { layer, image, index, artifact, artifactType } = content;
const REPOSITORY = '/v2/dockerhub/library/sample';
const LAYER = `${REPOSITORY}/blobs/${layer.descriptor.digest}`;
const ABSENT = digestOf(Buffer.from('absent'));

const memory = createMemory();
addSampleContent(memory, 'dockerhub/library/sample', content);

interface Answer {
  status: number;
  headers: Record<string, string | undefined>;
  body: Buffer;
  /** The code of an error response. */
  code: string | undefined;
  message: string | undefined;
}
interface Running extends AsyncDisposable {
  ask(target: string, options?: { method?: string; headers?: Record<string, string> }): Promise<Answer>;
  port: number;
  served: Served[];
  captured: CapturedLog;
}

async function start(registry: Registry = memory.registry, options: Partial<ServeOptions> = {}): Promise<Running> {
  const served: Served[] = [];
  const captured = await captureLog();
  const handler = serveRegistry(registry, {
    log: captured.log,
    nameOf: (first) => (['dockerhub', 'ghcr'].includes(first) ? first : undefined),
    upstreamOf: (host) => (host === 'docker.io' ? 'dockerhub' : undefined),
    observe: (one) => served.push(one),
    ...options,
  });
  const listener = await listen({ address: { host: '127.0.0.1', port: 0 }, handler, log: captured.log });
  return {
    port: listener.address.port,
    served,
    captured,
    ask: (target, { method = 'GET', headers = {} } = {}) => send({ port: listener.address.port, path: target, method, headers }),
    [Symbol.asyncDispose]: () => listener.close(),
  };
}

/** Uses node:http: fetch would change headers and follow redirects. */
function send(options: { port: number; path: string; method: string; headers: Record<string, string> }): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request({ ...options, host: '127.0.0.1', agent: false }, (response) => {
      response.toArray().then((chunks) => {
        const body = Buffer.concat(chunks as Buffer[]);
        const error = (response.statusCode ?? 0) >= 400 && body.length > 0 ? firstError(body) : undefined;
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers as Answer['headers'],
          body,
          code: error?.code,
          message: error?.message,
        });
      }, reject);
    });
    sent.once('error', reject);
    sent.end();
  });
}

function firstError(body: Buffer): { code: string; message: string } | undefined {
  const { errors } = JSON.parse(body.toString('utf8')) as { errors: { code: string; message: string }[] };
  return errors[0];
}

/** A registry of which one method fails. */
function failing(failure: Error): Registry {
  const fail = async () => {
    throw failure;
  };
  return { ...memory.registry, resolve: fail, manifest: fail, stat: fail, blob: fail, referrers: fail };
}

test('/v2/ says that this is a registry', async () => {
  await using server = await start();
  for (const target of ['/v2/', '/v2']) {
    const { status, headers, body } = await server.ask(target);
    assert.equal(status, 200);
    assert.equal(headers['docker-distribution-api-version'], 'registry/2.0');
    assert.deepEqual(JSON.parse(body.toString()), {});
  }
});

test('promise 7: manifests are served verbatim by tag and digest, whatever the client accepts', async () => {
  await using server = await start();
  for (const { descriptor, bytes, tags = [] } of content.manifests) {
    for (const reference of [descriptor.digest, ...tags]) {
      for (const accept of ['*/*', 'application/vnd.docker.distribution.manifest.v1+json', '']) {
        for (const method of ['GET', 'HEAD']) {
          const { status, headers, body } = await server.ask(`${REPOSITORY}/manifests/${reference}`, { method, headers: { accept } });
          assert.equal(status, 200);
          assert.equal(headers['content-type'], descriptor.mediaType);
          assert.equal(headers['content-length'], String(descriptor.size));
          assert.equal(headers['docker-content-digest'], descriptor.digest);
          assert.equal(headers['etag'], `"${descriptor.digest}"`);
          assert.equal(headers['docker-distribution-api-version'], 'registry/2.0');
          assert.deepEqual(body, method === 'GET' ? Buffer.from(bytes) : Buffer.alloc(0));
        }
      }
    }
  }
});

test('blobs are sent completely, and HEAD returns their size', async () => {
  await using server = await start();
  for (const { descriptor } of content.blobs) {
    for (const method of ['GET', 'HEAD']) {
      const { status, headers, body } = await server.ask(`${REPOSITORY}/blobs/${descriptor.digest}`, { method });
      assert.equal(status, 200);
      assert.equal(headers['content-type'], 'application/octet-stream');
      assert.equal(headers['content-length'], String(descriptor.size));
      assert.equal(headers['docker-content-digest'], descriptor.digest);
      assert.equal(headers['accept-ranges'], 'bytes');
      if (method === 'GET') assert.equal(digestOf(body), descriptor.digest);
      else assert.equal(body.length, 0);
    }
  }
});

test('ranges of a blob: single, open, suffix and neighbouring ones are 206, nonsense is the whole, outside 416', async () => {
  await using server = await start();
  const { size } = layer.descriptor;
  const end = size - 1;
  const cases: [string, number, [number, number]?][] = [
    ['bytes=0-0', 206, [0, 0]],
    ['bytes=5-9', 206, [5, 9]],
    ['bytes=1048576-', 206, [1_048_576, end]],
    [`bytes=10-${size + 100}`, 206, [10, end]],
    ['bytes=-7', 206, [size - 7, end]],
    [`bytes=-${size + 7}`, 206, [0, end]],
    ['BYTES=0-1', 206, [0, 1]],
    ['bytes=0-1,5-6', 206, [0, 6]],
    ['bytes=5-6, 0-1', 206, [0, 6]],
    ['bytes=9-5', 200],
    ['bytes=', 200],
    ['bytes=-', 200],
    ['bytes=a-b', 200],
    ['bytes=0x10-', 200],
    ['items=0-5', 200],
    ['bytes=99999999999999999999-', 416],
    [`bytes=${size}-`, 416],
    [`bytes=${size}-${size + 5}`, 416],
    ['bytes=-0', 416],
  ];
  for (const [range, status, part] of cases) {
    const answer = await server.ask(LAYER, { headers: { range } });
    assert.equal(answer.status, status, range);
    if (status === 416) {
      assert.equal(answer.headers['content-range'], `bytes */${size}`, range);
      assert.equal(answer.code, 'RANGE_INVALID');
      continue;
    }
    const [first, last] = part ?? [0, end];
    assert.equal(answer.headers['content-range'], status === 206 ? `bytes ${first}-${last}/${size}` : undefined, range);
    assert.equal(answer.headers['content-length'], String(last - first + 1), range);
    assert.equal(digestOf(answer.body), digestOf(layer.bytes.subarray(first, last + 1)), range);
  }
});

test('If-Range: the range only where it names this blob', async () => {
  await using server = await start();
  const ask = (ifRange: string) => server.ask(LAYER, { headers: { range: 'bytes=0-3', 'if-range': ifRange } });
  assert.equal((await ask(`"${layer.descriptor.digest}"`)).status, 206);
  for (const other of [`"${image.digest}"`, `W/"${layer.descriptor.digest}"`, 'Tue, 01 Jan 2030 00:00:00 GMT', 'x']) {
    assert.equal((await ask(other)).status, 200, other);
  }
});

test('HEAD ignores Range', async () => {
  await using server = await start();
  const { status, headers } = await server.ask(LAYER, { method: 'HEAD', headers: { range: 'bytes=0-3' } });
  assert.deepEqual([status, headers['content-length']], [200, String(layer.descriptor.size)]);
});

test('If-None-Match: 304 for what the client has already', async () => {
  await using server = await start();
  const targets: [string, Digest][] = [
    [`${REPOSITORY}/manifests/latest`, index.digest],
    [`${REPOSITORY}/manifests/${image.digest}`, image.digest],
    [LAYER, layer.descriptor.digest],
  ];
  for (const [target, digest] of targets) {
    for (const method of ['GET', 'HEAD']) {
      for (const match of [`"${digest}"`, `W/"${digest}"`, `"${ABSENT}", "${digest}"`, '*']) {
        const answer = await server.ask(target, { method, headers: { 'if-none-match': match } });
        assert.deepEqual(
          [answer.status, answer.body.length, answer.headers['etag']],
          [304, 0, `"${digest}"`],
          `${method} ${target} ${match}`,
        );
      }
      assert.equal((await server.ask(target, { method, headers: { 'if-none-match': `"${ABSENT}"` } })).status, 200);
    }
  }
  const absent = await server.ask(`${REPOSITORY}/blobs/${ABSENT}`, { headers: { 'if-none-match': `"${ABSENT}"` } });
  assert.equal(absent.status, 404, 'a missing file cannot be unmodified');
});

test('tags: all, a number of them, those after one, and the way to the next page', async () => {
  await using server = await start();
  const list = `${REPOSITORY}/tags/list`;
  const cases: [string, string[], string?][] = [
    ['', ['1.0', '1.1', 'latest']],
    ['?n=3', ['1.0', '1.1', 'latest']],
    ['?n=100', ['1.0', '1.1', 'latest']],
    ['?n=2', ['1.0', '1.1'], `<${list}?n=2&last=1.1>; rel="next"`],
    ['?n=2&last=1.1', ['latest']],
    ['?n=1&last=1.0', ['1.1'], `<${list}?n=1&last=1.1>; rel="next"`],
    ['?last=1.0', ['1.1', 'latest']],
    ['?n=0', []],
    ['?last=zzz', []],
  ];
  for (const [query, tags, link] of cases) {
    const { status, headers, body } = await server.ask(list + query);
    assert.equal(status, 200, query);
    assert.deepEqual(JSON.parse(body.toString()), { name: 'dockerhub/library/sample', tags }, query);
    assert.equal(headers['link'], link, query);
    assert.match(String(headers['content-type']), /^application\/json/);
  }
  const byHost = await server.ask('/v2/library/sample/tags/list?n=1&ns=docker.io');
  assert.equal(byHost.headers['link'], '</v2/library/sample/tags/list?n=1&ns=docker.io&last=1.0>; rel="next"');
  assert.equal((JSON.parse(byHost.body.toString()) as { name: string }).name, 'library/sample');
});

test('referrers: an index, and whether it was filtered', async () => {
  await using server = await start();
  const target = `${REPOSITORY}/referrers/${image.digest}`;
  const digests = (body: Buffer) =>
    (JSON.parse(body.toString()) as { manifests: { digest: string }[] }).manifests.map(({ digest }) => digest);
  const all = await server.ask(target);
  assert.deepEqual([all.status, all.headers['content-type'], all.headers['oci-filters-applied']], [200, OCI_INDEX, undefined]);
  assert.deepEqual(digests(all.body), [artifact.digest]);
  const some = await server.ask(`${target}?artifactType=${encodeURIComponent(artifactType)}`);
  assert.deepEqual([some.headers['oci-filters-applied'], digests(some.body)], ['artifactType', [artifact.digest]]);
  const none = await server.ask(`${REPOSITORY}/referrers/${ABSENT}`);
  assert.deepEqual([none.status, digests(none.body)], [200, []]);
});

test('containerd names the registry by ns: the path is without prefix, and the answer says OCI-Namespace', async () => {
  await using server = await start();
  for (const method of ['GET', 'HEAD']) {
    const manifest = await server.ask('/v2/library/sample/manifests/latest?ns=docker.io', { method });
    assert.deepEqual([manifest.status, manifest.headers['oci-namespace']], [200, 'docker.io']);
    const blob = await server.ask(`/v2/library/sample/blobs/${layer.descriptor.digest}?ns=docker.io`, { method });
    assert.deepEqual([blob.status, blob.headers['oci-namespace']], [200, 'docker.io']);
  }
  const unknown = await server.ask('/v2/library/sample/manifests/latest?ns=unknown.example');
  assert.deepEqual([unknown.status, unknown.code], [404, 'NAME_UNKNOWN']);
  assert.match(unknown.message ?? '', /unknown\.example.*add it to registry\.otherHosts.*under registry\.upstreams/);
  assert.equal(server.served.at(-1)?.upstream, 'unknown');
});

test('write requests get a 405 with the allowed methods, and the connection is closed', async () => {
  await using server = await start();
  const cases: [string, string, string][] = [
    ['PUT', `${REPOSITORY}/manifests/latest`, 'GET, HEAD'],
    ['POST', `${REPOSITORY}/blobs/uploads/`, 'GET, HEAD'],
    ['DELETE', LAYER, 'GET, HEAD'],
    ['GET', `${REPOSITORY}/blobs/uploads/`, ''],
    ['GET', '/v2/_catalog', ''],
  ];
  for (const [method, target, allow] of cases) {
    const { status, code, headers } = await server.ask(target, { method });
    assert.deepEqual([status, code, headers['allow'], headers['connection']], [405, 'UNSUPPORTED', allow, 'close'], `${method} ${target}`);
  }
});

test('promise 15: every error is the JSON of the specification, with a fitting status', async () => {
  const cases: [OciErrorCode, OciErrorOptions, number][] = [
    ['BLOB_UNKNOWN', {}, 404],
    ['MANIFEST_UNKNOWN', {}, 404],
    ['NAME_UNKNOWN', {}, 404],
    ['NAME_INVALID', {}, 400],
    ['TAG_INVALID', {}, 400],
    ['DIGEST_INVALID', {}, 400],
    ['UNAUTHORIZED', { origin: 'upstream' }, 401],
    ['DENIED', { origin: 'upstream' }, 403],
    ['RANGE_INVALID', {}, 416],
    ['TOOMANYREQUESTS', { retryAfter: 2.4 }, 429],
    ['MANIFEST_INVALID', { origin: 'upstream' }, 502],
    ['SIZE_INVALID', { origin: 'upstream' }, 502],
    ['UNAVAILABLE', { origin: 'upstream' }, 502],
    ['UNAVAILABLE', { origin: 'proxy' }, 502],
    ['UNAVAILABLE', { origin: 'storage' }, 503],
    ['UNAVAILABLE', { retryAfter: 0 }, 503],
  ];
  for (const [code, options, status] of cases) {
    await using server = await start(failing(new OciError(code, 'what to do', options)));
    for (const target of [`${REPOSITORY}/manifests/latest`, LAYER]) {
      const answer = await server.ask(target);
      assert.deepEqual([answer.status, answer.code, answer.message], [status, code, 'what to do'], `${code} ${JSON.stringify(options)}`);
      assert.match(String(answer.headers['content-type']), /^application\/json/);
      assert.equal(answer.headers['docker-distribution-api-version'], 'registry/2.0');
      const retryAfter = options.retryAfter === undefined ? undefined : String(Math.max(1, Math.ceil(options.retryAfter)));
      assert.equal(answer.headers['retry-after'], retryAfter);
      const head = await server.ask(target, { method: 'HEAD' });
      assert.deepEqual([head.status, head.body.length], [status, 0]);
    }
  }
});

test('an unexpected failure causes a 500 without details for the client, and a log line with all of them', async () => {
  await using server = await start(failing(new TypeError('secret detail')));
  const { status, code, message } = await server.ask(LAYER);
  assert.deepEqual([status, code], [500, 'UNKNOWN']);
  assert.doesNotMatch(message ?? '', /secret/);
  const [entry] = server.captured.entries().filter(({ level }) => level === 'error');
  assert.match(JSON.stringify(entry), /secret detail.*serve-registry\.test/);
});

test('a manifest that upstream could not confirm is marked stale', async () => {
  const registry: Registry = {
    ...memory.registry,
    manifest: async (...call) => ({ ...(await memory.registry.manifest(...call)), stale: true }),
  };
  await using server = await start(registry);
  const { status, headers } = await server.ask(`${REPOSITORY}/manifests/latest`);
  assert.deepEqual([status, headers['warning']], [200, '110 - "Response is Stale"']);
  assert.equal(server.served[0]?.outcome, 'stale');
});

test('a blob of unknown size is sent in chunks, a range of one says so', async () => {
  const registry: Registry = {
    ...memory.registry,
    blob: async (...call) => ({ ...(await memory.registry.blob(...call)), size: undefined }),
  };
  await using server = await start(registry);
  const whole = await server.ask(LAYER);
  assert.deepEqual([whole.status, whole.headers['transfer-encoding'], whole.headers['content-length']], [200, 'chunked', undefined]);
  assert.equal(digestOf(whole.body), layer.descriptor.digest);
  const part = await server.ask(LAYER, { headers: { range: 'bytes=2-5' } });
  assert.deepEqual([part.status, part.headers['content-range'], part.body.length], [206, 'bytes 2-5/*', 4]);
});

test('a registry that cannot do ranges answers 200 with the whole', async () => {
  const registry: Registry = {
    ...memory.registry,
    blob: (repository, digest, { signal }) => memory.registry.blob(repository, digest, { signal }),
  };
  await using server = await start(registry);
  const { status, headers, body } = await server.ask(LAYER, { headers: { range: 'bytes=2-5' } });
  assert.deepEqual([status, headers['content-range'], body.length], [200, undefined, layer.descriptor.size]);
});

test('GET of a blob may be redirected; HEAD, and blobs that the redirect declines, are not', async () => {
  const redirect: ServeOptions['redirect'] = async (repository, digest, { head }) => {
    if (digest === ABSENT) throw new OciError('BLOB_UNKNOWN', 'no');
    if (head || digest !== layer.descriptor.digest) return undefined;
    return { location: `https://s3.example/${repository}?signed`, headers: [] };
  };
  await using server = await start(memory.registry, { redirect });
  const moved = await server.ask(LAYER);
  assert.deepEqual(
    [moved.status, moved.headers['location'], moved.body.length],
    [307, 'https://s3.example/dockerhub/library/sample?signed', 0],
  );
  assert.equal((await server.ask(LAYER, { method: 'HEAD' })).status, 200);
  assert.equal((await server.ask(`${REPOSITORY}/blobs/${content.blobs[0]?.descriptor.digest}`)).status, 200);
  assert.equal((await server.ask(`${REPOSITORY}/blobs/${ABSENT}`)).status, 404);
});

test('Ollama, which reads blobs from the Location of the response, gets the URL that it requested; other clients get none', async () => {
  await using server = await start();
  const ollama = await server.ask(LAYER, { headers: { 'user-agent': 'ollama/0.14.1 (amd64 linux) Go/go1.24.1' } });
  assert.deepEqual([ollama.status, ollama.headers['location']], [200, LAYER]);
  assert.equal((await server.ask(LAYER, { headers: { 'user-agent': 'containerd/2.4' } })).headers['location'], undefined);
});

test('when a client disconnects, its work is aborted, before and during the response', async () => {
  for (const when of ['before', 'within'] as const) {
    const { promise: asked, resolve: wasAsked } = Promise.withResolvers<void>();
    const { promise: aborted, resolve: wasAborted } = Promise.withResolvers<void>();
    const registry: Registry = {
      ...memory.registry,
      async blob(_repository, digest, { signal }) {
        const gone = new Promise<never>((_resolve, reject) => {
          signal.addEventListener('abort', () => {
            wasAborted();
            reject(signal.reason as Error);
          });
        });
        wasAsked();
        if (when === 'before') return gone;
        const body = async function* () {
          yield Buffer.alloc(10);
          yield await gone;
        };
        return { digest, size: 100, range: undefined, body: body() };
      },
    };
    await using server = await start(registry);
    const client = await openSilently(server.port, `GET ${LAYER} HTTP/1.1\r\nHost: x\r\n\r\n`);
    await asked;
    client.destroy();
    await aborted;
    while (server.served.length === 0) await new Promise(setImmediate);
    assert.deepEqual([server.served[0]?.status, server.served[0]?.outcome], [499, 'gone']);
    assert.deepEqual(
      server.captured.entries().filter(({ level }) => level !== 'debug'),
      [],
    );
  }
});

test('responses are observed, with a limited number of upstream labels', async () => {
  await using server = await start();
  await server.ask(LAYER);
  await server.ask(LAYER, { headers: { range: 'bytes=0-9' } });
  await server.ask(`${REPOSITORY}/manifests/absent`);
  await server.ask('/v2/whatever/x/manifests/1');
  await server.ask('/v2/');
  await server.ask('/nothing');
  assert.deepEqual(
    server.served.map(({ upstream, kind, status, outcome, bytes }) => [upstream, kind, status, outcome, bytes]),
    [
      ['dockerhub', 'blob', 200, 'ok', layer.descriptor.size],
      ['dockerhub', 'blob', 206, 'ok', 10],
      ['dockerhub', 'manifest', 404, 'error', 0],
      ['unknown', 'manifest', 404, 'error', 0],
      ['none', 'ping', 200, 'ok', 2],
      ['none', 'none', 404, 'error', 0],
    ],
  );
  assert.ok(server.served.every(({ seconds }) => seconds >= 0 && seconds < 60));
});

test('a large manifest is sent from its stored copy once slow clients hold too many bytes, and from memory where there is no copy', async () => {
  const bytes = [0, 1, 2].map((fill) => Buffer.alloc(24 * 2 ** 20, fill)); // more than a connection can buffer
  const digests = bytes.map((one) => digestOf(one));
  const opened: number[] = [];
  const registry: Registry = {
    ...memory.registry,
    async manifest(_repository, reference) {
      const index = digests.indexOf(reference as Digest);
      const [digest, own] = [digests[index], bytes[index]];
      assert.ok(digest !== undefined && own !== undefined);
      const open = async () => {
        opened.push(index);
        return index === 1 ? { digest, size: own.length, range: undefined, body: oneChunk(own) } : undefined;
      };
      return { descriptor: { digest, mediaType: OCI_INDEX, size: own.length }, bytes: own, stale: false, open };
    },
  };
  await using running = await start(registry);
  const path = (index: number) => `${REPOSITORY}/manifests/${digests[index]}`;
  const stalled = await Promise.all([0, 0].map((index) => openSilently(running.port, `GET ${path(index)} HTTP/1.1\r\nHost: x\r\n\r\n`)));
  await until(() => stalled.every(({ readableLength }) => readableLength > 0), 'the first answers have begun');
  for (const index of [1, 2]) assert.ok((await running.ask(path(index))).body.equals(bytes[index] ?? Buffer.alloc(0)));
  assert.deepEqual(opened, [1, 2]);
  for (const socket of stalled) socket.destroy();
  await until(() => running.served.length === 4, 'the stalled requests are over');
  assert.ok((await running.ask(path(1))).body.equals(bytes[1] ?? Buffer.alloc(0)));
  assert.deepEqual(opened, [1, 2], 'held slots have been released');
});

async function* oneChunk(bytes: Buffer): AsyncGenerator<Uint8Array> {
  yield bytes;
}

test('several ranges of a blob are answered in parts, as a stargz snapshotter reads them (RFC 9110 §14.6)', async () => {
  await using running = await start();
  const { size } = layer.descriptor;
  const ask = (range: string) => running.ask(LAYER, { headers: { range } });
  const answer = await ask(`bytes=${size - 10}-,0-9, ${size}-`);
  assert.equal(answer.status, 206);
  assert.equal(answer.headers['content-length'], String(answer.body.length));
  assert.equal(answer.headers['content-range'], undefined);
  const form = partsOf(answer);
  assert.deepEqual(
    form.map(({ range }) => range),
    [`bytes ${size - 10}-${size - 1}/${size}`, `bytes 0-9/${size}`],
  );
  assert.ok(form[0]?.bytes.equals(layer.bytes.subarray(size - 10)));
  assert.ok(form[1]?.bytes.equals(layer.bytes.subarray(0, 10)));

  const joined = await ask('bytes=0-9,5-20');
  assert.equal(joined.status, 206);
  assert.equal(joined.headers['content-range'], `bytes 0-20/${size}`);
  assert.ok(joined.body.equals(layer.bytes.subarray(0, 21)));
  const outside = await ask(`bytes=${size}-,${size + 5}-`);
  assert.equal(outside.status, 416);
  assert.equal(outside.headers['content-range'], `bytes */${size}`);
  for (const range of ['bytes=0-,-5', `bytes=${Array.from({ length: 65 }, () => '0-0').join(',')}`]) {
    const whole = await ask(range);
    assert.ok([200, 206].includes(whole.status) && whole.body.equals(layer.bytes), range);
  }
});

/** The parts of a multipart/byteranges body, cut at its boundary. */
function partsOf({ headers, body }: Answer): { range: string; bytes: Buffer }[] {
  const boundary = /^multipart\/byteranges; boundary=(\w+)$/.exec(headers['content-type'] ?? '')?.[1] ?? assert.fail();
  const text = body.toString('latin1');
  assert.ok(text.endsWith(`\r\n--${boundary}--\r\n`));
  return text
    .split(new RegExp(`(?:^|\r\n)--${boundary}(?:\r\n|--\r\n)`))
    .slice(1, -1)
    .map((part) => {
      const end = part.indexOf('\r\n\r\n');
      const range = /^content-range: (.+)$/im.exec(part.slice(0, end))?.[1] ?? assert.fail();
      return { range, bytes: Buffer.from(part.slice(end + 4), 'latin1') };
    });
}
