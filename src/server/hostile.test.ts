import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { captureLog } from '../../test/support/log.ts';
import { statuses, talk } from '../../test/support/raw-http.ts';
import { digestOf } from '../oci/digest.ts';
import { createMemory } from '../registry/memory.ts';
import { addSampleContent, sampleContent } from '../registry/sample-content.ts';
import { listen } from './listen.ts';
import { serveRegistry, type Served } from './serve-registry.ts';

const REQUESTS = 2_000;
const AT_ONCE = 20;

const content = sampleContent();
const { layer, image } = content;
const REPOSITORY = 'dockerhub/library/sample';

const nasty = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.constantFrom(
      '..',
      '.',
      '%2e%2e',
      '%2f',
      '%5c',
      '%00',
      '%0d%0a',
      '%c0%af',
      '%ff',
      '\\',
      '//',
      '~',
      '|',
      '$(x)',
      "'",
      '<script>',
    ),
  },
  {
    weight: 2,
    arbitrary: fc.constantFrom(
      'NGINX',
      'a'.repeat(300),
      '__proto__',
      'constructor',
      'sha256:',
      `sha256:${'A'.repeat(64)}`,
      'sha512:00',
      'md5:00',
    ),
  },
  { weight: 2, arbitrary: fc.string({ maxLength: 30 }) },
  { weight: 1, arbitrary: fc.string({ unit: 'binary', maxLength: 20 }) },
);
const fair = fc.constantFrom(
  'dockerhub',
  'library',
  'sample',
  REPOSITORY,
  'latest',
  '1.0',
  layer.descriptor.digest,
  image.digest,
  'uploads',
  'list',
  '_catalog',
);
const verb = fc.constantFrom('manifests', 'blobs', 'tags', 'referrers', 'uploads');
const query = fc.oneof(
  fc.constant(''),
  fc
    .array(fc.tuple(fc.constantFrom('n', 'last', 'ns', 'artifactType', 'digest', 'x'), fc.oneof(nasty, fair, fc.integer().map(String))), {
      maxLength: 4,
    })
    .map((pairs) => `?${pairs.map(([name, value]) => `${name}=${value}`).join('&')}`),
);
const target = fc
  .oneof(
    { weight: 3, arbitrary: fc.tuple(fc.constant(['dockerhub', 'library', 'sample']), verb, fair, query) },
    { weight: 6, arbitrary: fc.tuple(fc.array(fc.oneof(nasty, fair), { maxLength: 4 }), verb, fc.oneof(nasty, fair), query) },
    { weight: 1, arbitrary: fc.tuple(fc.array(nasty, { maxLength: 3 }), nasty, nasty, query) },
  )
  .map(([name, verb, argument, query]) => `/v2/${name.join('/')}/${verb}/${argument}${query}`);

const usualHeader = fc.tuple(
  fc.constantFrom('Range', 'If-None-Match', 'If-Range', 'Accept', 'Authorization', 'X-Kube-Registry-Hop', 'Cookie', 'Upgrade', 'TE'),
  fc.oneof(
    fc.constantFrom(
      'bytes=0-1',
      'bytes=-5',
      'bytes=9-',
      'bytes=0-0,1-1',
      `bytes=${'9'.repeat(40)}-`,
      '*',
      'websocket',
      '1',
      '',
      'a'.repeat(4_000),
    ),
    fc.constantFrom(`"${layer.descriptor.digest}"`, `"${image.digest}"`, '"', "' OR 1=1", '../../etc/passwd', '\u00ff\u00fe'),
  ),
);
const strangeHeader = fc.oneof(
  fc.tuple(
    fc.constantFrom('Content-Length', 'Transfer-Encoding', 'Expect'),
    fc.constantFrom('0', '5', '-1', '99999999999999999999', 'chunked', 'gzip, chunked', '100-continue', 'x'),
  ),
  fc.tuple(fc.string({ maxLength: 12 }), nasty),
);
const header = fc.oneof({ weight: 12, arbitrary: usualHeader }, { weight: 1, arbitrary: strangeHeader });
const request = fc
  .record({
    method: fc.oneof(
      { weight: 20, arbitrary: fc.constantFrom('GET', 'HEAD') },
      { weight: 2, arbitrary: fc.constantFrom('PUT', 'POST', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE', 'CONNECT', 'PROPFIND', 'QUERY') },
      { weight: 1, arbitrary: fc.string({ maxLength: 8 }) },
    ),
    target: fc.oneof({ weight: 8, arbitrary: target }, { weight: 1, arbitrary: fc.string({ maxLength: 60 }) }),
    version: fc.oneof(
      { weight: 30, arbitrary: fc.constant('HTTP/1.1') },
      { weight: 1, arbitrary: fc.constantFrom('HTTP/1.0', 'HTTP/2.0', 'HTTP/9', '') },
    ),
    headers: fc.array(header, { maxLength: 4 }),
    body: fc.oneof({ weight: 20, arbitrary: fc.constant('') }, { weight: 1, arbitrary: nasty }),
  })
  .map(({ method, target, version, headers, body }) => {
    const lines = [
      `${method} ${target} ${version}`,
      'Host: registry',
      'Connection: close',
      ...headers.map(([name, value]) => `${name}: ${value}`),
    ];
    return `${lines.join('\r\n')}\r\n\r\n${body}`;
  });
const anything = fc.oneof(
  { weight: 30, arbitrary: request },
  { weight: 1, arbitrary: fc.string({ unit: 'binary', minLength: 1, maxLength: 200 }) },
);

test(`${REQUESTS} hostile requests: no crash, no 5xx, nothing unexpected in the log, and the next pull is served`, async (context) => {
  const memory = createMemory();
  addSampleContent(memory, REPOSITORY, content);
  const captured = await captureLog('warn');
  const { log } = captured;
  const served: Served[] = [];
  const handler = serveRegistry(memory.registry, {
    log,
    upstreams: ['dockerhub'],
    upstreamOf: (host) => (host === 'docker.io' ? 'dockerhub' : undefined),
    observe: (one) => served.push(one),
  });
  await using listener = await listen({
    address: { host: '127.0.0.1', port: 0 },
    handler,
    log,
    limits: { headers: 1_000, request: 1_000 },
  });

  const seed = Date.now(); // put the one of a failure here to see it again
  context.diagnostic(`seed ${seed}`);
  const requests = fc.sample(anything, { numRuns: REQUESTS, seed });
  const counts = new Map<number, number>();
  const client = async () => {
    for (let next = requests.pop(); next !== undefined; next = requests.pop()) {
      const { text } = await talk(listener.address.port, next, { patience: 3_000 });
      for (const status of statuses(text.slice(0, 2_000))) counts.set(status, (counts.get(status) ?? 0) + 1);
      assert.ok(
        statuses(text.slice(0, 2_000)).every((status) => status < 500),
        `${JSON.stringify(next)} → ${text.slice(0, 300)}`,
      );
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, client));

  context.diagnostic(
    `answers: ${[...counts]
      .sort(([a], [b]) => a - b)
      .map(([status, count]) => `${count} × ${status}`)
      .join(', ')}`,
  );
  assert.deepEqual(captured.entries(), []);
  assert.ok(
    [200, 400, 404, 405].every((status) => (counts.get(status) ?? 0) > 0),
    'of every kind',
  );
  assert.ok(served.every(({ upstream }) => ['dockerhub', 'unknown', 'none'].includes(upstream)));
  const response = await fetch(`${listener.url}/v2/${REPOSITORY}/blobs/${layer.descriptor.digest}`);
  assert.equal(digestOf(new Uint8Array(await response.arrayBuffer())), layer.descriptor.digest);
});
