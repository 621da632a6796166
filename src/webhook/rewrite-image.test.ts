import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DEFAULT_UPSTREAMS } from '../config/schema.ts';
import { parseConfig } from '../config/load.ts';
import { OciError } from '../oci/error.ts';
import { servedHosts } from '../oci/image-name.ts';
import { createMemory } from '../testing/memory-registry.ts';
import { routed } from '../registry/routed.ts';
import { parseRequest } from '../server/parse-request.ts';
import { rewriteImage, type RewriteRules } from './rewrite-image.ts';

const SHA = `sha256:${'0123456789abcdef'.repeat(4)}`;
const SHA512 = `sha512:${'0123456789abcdef'.repeat(8)}`;
const rules: RewriteRules = {
  registryHost: '127.0.0.1:25000',
  hosts: servedHosts(parseConfig({}).registry),
};

/** Image → what stands behind `127.0.0.1:25000/`; undefined: it stays as it is. */
const TABLE: [string, string | undefined][] = [
  ['nginx', 'dockerhub/library/nginx'],
  ['nginx:1.27', 'dockerhub/library/nginx:1.27'],
  ['nginx:latest', 'dockerhub/library/nginx:latest'],
  [`nginx@${SHA}`, `dockerhub/library/nginx@${SHA}`],
  [`nginx:1.27@${SHA}`, `dockerhub/library/nginx:1.27@${SHA}`],
  [`nginx@${SHA512}`, `dockerhub/library/nginx@${SHA512}`],
  ['user/app', 'dockerhub/user/app'],
  ['user/app:v1', 'dockerhub/user/app:v1'],
  ['a/b/c/d', 'dockerhub/a/b/c/d'],
  ['docker.io/nginx', 'dockerhub/library/nginx'],
  ['docker.io/library/nginx', 'dockerhub/library/nginx'],
  ['docker.io/user/app:1', 'dockerhub/user/app:1'],
  ['index.docker.io/nginx', 'dockerhub/library/nginx'],
  ['index.docker.io/library/nginx:1', 'dockerhub/library/nginx:1'],
  ['registry-1.docker.io/nginx', 'dockerhub/library/nginx'],
  ['registry-1.docker.io/library/nginx', 'dockerhub/library/nginx'],
  ['ghcr.io/owner/app', 'ghcr/owner/app'],
  ['ghcr.io/owner/app:v1.2.3-rc.1_x', 'ghcr/owner/app:v1.2.3-rc.1_x'],
  [`ghcr.io/owner/app@${SHA}`, `ghcr/owner/app@${SHA}`],
  ['ghcr.io/app', 'ghcr/app'],
  ['quay.io/prometheus/node-exporter:v1', 'quay/prometheus/node-exporter:v1'],
  ['registry.k8s.io/pause:3.9', 'k8s/pause:3.9'],
  ['registry.k8s.io/ingress-nginx/controller:v1', 'k8s/ingress-nginx/controller:v1'],
  ['k8s.gcr.io/pause:3.6', 'k8s/pause:3.6'],
  ['gcr.io/distroless/static', 'gcr/distroless/static'],
  ['my_app', 'dockerhub/library/my_app'],
  ['my__app', 'dockerhub/library/my__app'],
  ['my--app', 'dockerhub/library/my--app'],
  ['my.app', 'dockerhub/library/my.app'],
  ['my.app:1', 'dockerhub/library/my.app:1'],
  ['nginx:1234', 'dockerhub/library/nginx:1234'],
  ['nginx:V1_A', 'dockerhub/library/nginx:V1_A'],
  [`nginx:${'t'.repeat(128)}`, `dockerhub/library/nginx:${'t'.repeat(128)}`],
  ['ab/cd:x', 'dockerhub/ab/cd:x'],
  ['0/1', 'dockerhub/0/1'],
  ['my-host/app', 'dockerhub/my-host/app'],
  // No upstream has the host.
  ['localhost/x', undefined],
  ['localhost:5000/x', undefined],
  ['a.b/c', undefined],
  ['a.b/c/d:1', undefined],
  ['a:5000/c', undefined],
  ['docker.io:443/library/nginx', undefined],
  ['ghcr.io:443/a/b', undefined],
  ['192.168.1.1/app', undefined],
  ['192.168.1.1:5000/app:1', undefined],
  ['[::1]/app', undefined],
  ['[2001:db8::1]:5000/app:1', undefined],
  // Hosts of registry.otherHosts, by default.
  ['mcr.microsoft.com/a/b:1', 'mcr.microsoft.com/a/b:1'],
  ['nvcr.io/a/b:1', 'nvcr.io/a/b:1'],
  ['public.ecr.aws/a/b:1', 'public.ecr.aws/a/b:1'],
  ['docker.elastic.co/a/b:1', 'docker.elastic.co/a/b:1'],
  ['lscr.io/a/b:1', 'lscr.io/a/b:1'],
  ['registry.gitlab.com/a/b:1', 'registry.gitlab.com/a/b:1'],
  ['registry.access.redhat.com/a/b:1', 'registry.access.redhat.com/a/b:1'],
  ['cgr.dev/a/b:1', 'cgr.dev/a/b:1'],
  ['cr.l5d.io/a/b:1', 'cr.l5d.io/a/b:1'],
  ['cr.fluentbit.io/a/b:1', 'cr.fluentbit.io/a/b:1'],
  ['docker.n8n.io/a/b:1', 'docker.n8n.io/a/b:1'],
  ['registry.ollama.ai/a/b:1', 'registry.ollama.ai/a/b:1'],
  ['europe-west1-docker.pkg.dev/a/b:1', 'europe-west1-docker.pkg.dev/a/b:1'],
  ['us-docker.pkg.dev/project/repo/app', 'us-docker.pkg.dev/project/repo/app'],
  ['123.dkr.ecr.us-east-1.amazonaws.com/app:1', undefined],
  ['MYHOST/app', undefined],
  ['Docker.io/nginx', undefined],
  ['GHCR.IO/a/b', undefined],
  ['xn--n3h.com/app', undefined],
  // Through this registry already, or through another one of the node.
  ['127.0.0.1:25000/dockerhub/library/nginx', undefined],
  [`127.0.0.1:25000/ghcr/a/b@${SHA}`, undefined],
  ['127.0.0.1/nginx', undefined],
  // No names of images.
  ['', undefined],
  [' ', undefined],
  ['nginx ', undefined],
  ['NGINX', undefined],
  ['Library/nginx/App', undefined],
  ['docker.io/Library/nginx', undefined],
  ['ghcr.io/Owner/app', undefined],
  ['nginx:', undefined],
  ['nginx@', undefined],
  ['nginx:1:2', undefined],
  ['nginx:.1', undefined],
  ['nginx:-1', undefined],
  [`nginx:${'t'.repeat(129)}`, undefined],
  ['nginx@sha256:abc', undefined],
  [`nginx@sha256:${'G'.repeat(64)}`, undefined],
  [`nginx@${SHA}:1`, undefined],
  [`nginx@md5:${'0'.repeat(32)}`, undefined],
  ['0123456789abcdef'.repeat(4), undefined],
  ['-nginx', undefined],
  ['nginx-', undefined],
  ['ngi..nx', undefined],
  ['a//b', undefined],
  ['/nginx', undefined],
  ['nginx/', undefined],
  ['docker.io/', undefined],
  ['-a.b/c', undefined],
  ['[::1/app', undefined],
  ['https://docker.io/nginx', undefined],
  ['nginx?x', undefined],
  ['ngïnx', undefined],
  ['a'.repeat(256), undefined],
  [`${'a'.repeat(240)}/b`, `dockerhub/${'a'.repeat(240)}/b`],
  [`${'a'.repeat(250)}/b`, undefined],
];

test(`promise W2: ${TABLE.length} image names are mapped or left alone as the grammar says`, () => {
  assert.ok(TABLE.length >= 60);
  for (const [image, expected] of TABLE) {
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
  /** The registry's routes, which note who is asked for what. */
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
      // What a container runtime asks for: the tag, and the digest.
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
