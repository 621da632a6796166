import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DEFAULT_UPSTREAMS } from '../config/schema.ts';
import { parseConfig } from '../config/load.ts';
import { OciError } from '../oci/error.ts';
import { servedHosts } from '../oci/image-name.ts';
import { createMemory } from '../testing/memory-registry.ts';
import { IMAGE_NAMES } from '../testing/rewriting-cases.ts';
import { routed } from '../registry/routed.ts';
import { parseRequest } from '../server/parse-request.ts';
import { rewriteImage, type RewriteRules } from './rewrite-image.ts';

const rules: RewriteRules = {
  registryHost: '127.0.0.1:25000',
  hosts: servedHosts(parseConfig({}).registry),
};

test(`promise W2: ${IMAGE_NAMES.length} image names are mapped or left unchanged according to the grammar`, () => {
  assert.ok(IMAGE_NAMES.length >= 60);
  for (const [image, expected] of IMAGE_NAMES) {
    const rewritten = rewriteImage(image, rules);
    assert.equal(rewritten, expected === undefined ? undefined : `127.0.0.1:25000/${expected}`, image);
    if (rewritten !== undefined) assert.equal(rewriteImage(rewritten, rules), undefined, `${rewritten} stays`);
  }
});

const component = fc.stringMatching(/^[a-z0-9]{1,8}(?:(?:\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}$/);
const suffix = fc.oneof(
  fc.constant(''),
  fc.stringMatching(/^:[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}$/),
  fc.stringMatching(/^@sha256:[a-f0-9]{64}$/),
  fc.stringMatching(/^:[A-Za-z0-9_]{1,5}@sha256:[a-f0-9]{64}$/),
);

test('promise W2: the registry reads a rewritten name as the same upstream, repository, tag and digest', async () => {
  const host = fc.constantFrom(...Object.values(DEFAULT_UPSTREAMS).flatMap(({ hosts = [] }) => hosts));
  const asked: string[] = [];
  /** The registry's routes, which record the requests to each upstream. */
  const registry = routed(
    Object.fromEntries(
      Object.entries(DEFAULT_UPSTREAMS).map(([name, { defaultNamespace }]) => {
        const noting = {
          ...createMemory().registry,
          resolve(repository: string, reference: string) {
            asked.push(`${name} ${repository} ${reference}`);
            return Promise.reject(new OciError('MANIFEST_UNKNOWN', 'noted'));
          },
        };
        return [name, { registry: noting, defaultNamespace }];
      }),
    ),
  );
  await fc.assert(
    fc.asyncProperty(host, fc.array(component, { minLength: 1, maxLength: 4 }), suffix, async (host, path, suffix) => {
      const rewritten = rewriteImage(`${host}/${path.join('/')}${suffix}`, rules);
      const upstream = rules.hosts.find(host);
      assert.ok(rewritten !== undefined && upstream !== undefined);
      const [name = '', digest] = rewritten.slice(rules.registryHost.length + 1).split('@');
      const [repository = '', tag] = name.split(':');
      assert.equal((tag === undefined ? '' : `:${tag}`) + (digest === undefined ? '' : `@${digest}`), suffix);
      const short = path.length === 1 && upstream.defaultNamespace !== undefined;
      const expected = `${upstream.name} ${short ? `${upstream.defaultNamespace}/` : ''}${path.join('/')}`;
      // The requests of a container runtime: the tag, and the digest.
      for (const reference of [tag ?? 'latest', ...(digest === undefined ? [] : [digest])]) {
        const request = parseRequest('HEAD', `/v2/${repository}/manifests/${reference}`);
        assert.ok(request.kind === 'manifest');
        await assert.rejects(registry.resolve(request.repository, request.reference, { signal: new AbortController().signal }));
        assert.equal(asked.pop(), `${expected} ${reference}`);
      }
    }),
    { numRuns: 1000 },
  );
});

test('promise W2: any text is an image name or is not, and never an error', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 300 }), (text) => {
      rewriteImage(text, rules);
    }),
    { numRuns: 1000 },
  );
});
