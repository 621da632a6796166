import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseConfig } from '../../config/load.ts';
import { servedHosts } from '../../oci/image-name.ts';
import { parseWarmName } from './warm-name.ts';

const { registry, webhook } = parseConfig({});
const rules = { registryHost: webhook.registryHost, hosts: servedHosts(registry) };
const digest = `sha256:${'0123456789abcdef'.repeat(4)}`;

const cases: [string, string | undefined][] = [
  ['nginx', 'dockerhub/library/nginx latest'],
  ['nginx:1.27', 'dockerhub/library/nginx 1.27'],
  ['docker.io/nginx', 'dockerhub/library/nginx latest'],
  ['index.docker.io/bitnami/redis:7', 'dockerhub/bitnami/redis 7'],
  [`ghcr.io/a/b:1@${digest}`, `ghcr/a/b ${digest}`],
  [`registry.k8s.io/pause@${digest}`, `k8s/pause ${digest}`],
  ['127.0.0.1:25000/dockerhub/library/nginx:1', 'dockerhub/library/nginx 1'],
  ['localhost:5000/quay/a/b:1', 'quay/a/b 1'],
  [`127.0.0.1:25000/by-${'a'.repeat(26)}/ghcr/acme/app:1`, `by-${'a'.repeat(26)}/ghcr/acme/app 1`],
  [
    `127.0.0.1:25000/by-${'a'.repeat(26)}-${'b'.repeat(26)}/mcr.microsoft.com/app:1`,
    `by-${'a'.repeat(26)}-${'b'.repeat(26)}/mcr.microsoft.com/app 1`,
  ],
  [`127.0.0.1:25000/by-${'a'.repeat(26)}/mine/app:1`, undefined],
  ['127.0.0.1:5000/mine/app:1', undefined],
  ['quay/a/b:1', 'dockerhub/quay/a/b 1'],
  ['elsewhere.example/a:1', undefined],
  ['Not/An Image', undefined],
];

for (const [image, expected] of cases) {
  test(`${image} is ${expected ?? 'none of this registry'}`, () => {
    const name = parseWarmName(image, rules);
    assert.equal(name && `${name.repository} ${name.reference}`, expected);
  });
}
