import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { DEFAULT_UPSTREAMS } from '../src/config/registry-schema.ts';
import { refusal } from './render.ts';

const S3 = { config: { bucket: 'images' }, secret: { accessKeyId: 'id', secretAccessKey: 'key' } };
const CLASH = { enabled: true, subscriptionUrl: 'https://airport.example/' };

/** Values that cannot work, and the message that rejects them. */
const CASES: [name: string, values: unknown, sentence: RegExp][] = [
  [
    'S3 without a bucket',
    { registry: { s3: { config: { region: 'eu' } } } },
    /half configured: write the bucket's name as registry\.s3\.config\.bucket/,
  ],
  ['S3 keys without a bucket', { registry: { s3: { secret: S3.secret } } }, /registry\.s3\.config\.bucket/],
  ['a pull secret without a name', { global: { imagePullSecrets: [{ secret: 'x' }] } }, /imagePullSecrets/],
  ['a number for a pull secret', { global: { imagePullSecrets: [1] } }, /imagePullSecrets/],
  ['S3 without keys', { registry: { s3: { config: S3.config } } }, /write registry\.s3\.secret\.accessKeyId and secretAccessKey, or/],
  [
    'S3 with only its key ID',
    { registry: { s3: { ...S3, secret: { accessKeyId: 'id' } } } },
    /registry\.s3\.secret\.secretAccessKey is missing/,
  ],
  [
    'S3 with only its secret key',
    { registry: { s3: { ...S3, secret: { secretAccessKey: 'key' } } } },
    /registry\.s3\.secret\.accessKeyId is missing/,
  ],
  [
    'S3 with keys twice',
    { registry: { s3: { ...S3, secret: { ...S3.secret, existingSecret: 'x' } } } },
    /either registry\.s3\.secret\.existingSecret, or/,
  ],
  ['S3 with keys and a role', { registry: { s3: { ...S3, workloadIdentity: true } } }, /remove registry\.s3\.workloadIdentity/],
  [
    "the former chart's S3, incomplete",
    { zot: { s3: { config: { bucket: 'b', region: 'r', regionEndpoint: '' }, secret: { accessKeyId: '' } } } },
    /half configured/,
  ],
  [
    'S3 and the S3 of the chart',
    { registry: { s3: S3 }, objectStorage: { enabled: true } },
    /either registry\.s3 or objectStorage\.enabled/,
  ],
  [
    'pull secrets to use that nobody may read',
    { webhook: { pullSecrets: 'use' } },
    /pullSecrets\.namespaces, or pullSecrets\.allNamespaces: true/,
  ],
  [
    'pull secrets to read in mirror mode',
    { agent: { mirror: { enabled: true } }, pullSecrets: { allNamespaces: true } },
    /without the webhook nothing uses them: remove pullSecrets/,
  ],
  ['a namespace with a slash', { pullSecrets: { namespaces: ['a/b'] } }, /pullSecrets/],
  ['S3 and a volume', { registry: { s3: S3, persistence: { enabled: true } } }, /remove registry\.persistence\.enabled/],
  ['S3 and a claim', { registry: { s3: S3, persistence: { existingClaim: 'mine' } } }, /two stores/],
  ['S3 of the chart and a volume', { registry: { persistence: { enabled: true } }, objectStorage: { enabled: true } }, /two stores/],
  ['S3 and a folder', { registry: { s3: S3, config: { storage: { filesystem: { directory: '/x' } } } } }, /two stores/],
  ['replicas on one volume', { registry: { replicas: 2 } }, /registry\.replicas is 2.*write registry\.replicas: 1, or use S3/],
  ['replicas without any', { registry: { replicas: 2, persistence: { enabled: false } } }, /registry\.replicas is 2/],
  [
    "one of the two keys of the chart's S3",
    { objectStorage: { enabled: true, secret: { accessKeyId: 'id' } } },
    /accessKeyId and secretAccessKey, or neither/,
  ],
  [
    'clash without a subscription or config',
    { clash: { enabled: true } },
    /clash\.enabled is true, but .*write clash\.subscriptionUrl .*or a mihomo config as clash\.config/,
  ],
  ['clash with an empty subscription', { clash: { enabled: true, subscriptionUrl: '' } }, /write clash\.subscriptionUrl/],
  ['clash of its own config, without one', { clash: { ...CLASH, mode: 'custom' } }, /clash\.mode is custom: write the mihomo config/],
  [
    'clash of nodes, with only a config',
    { clash: { enabled: true, mode: 'full', config: { rules: [] } } },
    /clash\.mode is full: write clash\.subscriptionUrl/,
  ],
  [
    'clash with its subscription given twice',
    { clash: { ...CLASH, existingSecret: 'x' } },
    /either clash\.subscriptionUrl or clash\.existingSecret/,
  ],
  ['clash with two configs', { clash: { enabled: true, config: { a: 1 }, existingConfigSecret: 'x' } }, /two mihomo configs/],
  ['a shared proxy without users', { clash: { ...CLASH, service: { enabled: true } } }, /needs passwords: write clash\.users/],
  ['a shared proxy without clash', { clash: { service: { enabled: true } } }, /write clash\.enabled: true/],
  [
    'a user without a password',
    { clash: { ...CLASH, users: [{ username: 'u' }] } },
    /clash\.users\.0 is incomplete: write its username, and password or existingSecret/,
  ],
  [
    'a subscription without a name',
    { clash: { enabled: true, subscriptions: [{ existingSecret: 'x' }] } },
    /clash\.subscriptions\.0 is incomplete: write its name, and url or/,
  ],
  [
    'a credential without a password',
    { registry: { upstreams: { ghcr: { credentials: [{ username: 'u' }] } } } },
    /registry\.upstreams\.ghcr\.credentials\.0 is incomplete: write username and password, or existingSecret/,
  ],
  [
    'a new upstream without a URL',
    { registry: { upstreams: { harbor: { proxy: 'direct' } } } },
    /registry\.upstreams\.harbor is not one of.*write its url/,
  ],
  ['a webhook without agents', { agent: { enabled: false } }, /write webhook\.enabled: false, or webhook\.reach: external/],
  ['a webhook to nowhere', { webhook: { reach: 'external' } }, /webhook\.registryHost/],
  [
    'a webhook to a URL',
    { webhook: { reach: 'external', registryHost: 'https://registry.example/' } },
    /registryHost is not a host .*without https/,
  ],
  [
    'a webhook to a name that images cannot start with',
    { webhook: { reach: 'external', registryHost: 'registry' } },
    /registryHost is not a host/,
  ],
  ['mirror mode without agents', { agent: { enabled: false, mirror: { enabled: true } } }, /write agent\.enabled: true/],
  ['a certificate without its authority', { webhook: { tls: { existingSecret: 'x' } } }, /needs webhook\.tls\.caBundle/],
  ['two certificates', { webhook: { tls: { existingSecret: 'x', caBundle: 'x', certManager: { enabled: true } } } }, /two certificates/],
  [
    'an exposed registry without a certificate',
    { registry: { exposed: { enabled: true, htpasswd: 'x' } } },
    /registry\.exposed\.tlsSecret/,
  ],
  [
    'a console outside the cluster without users',
    { console: { ingress: { enabled: true, host: 'a.example', tlsSecret: 'x' } } },
    /console\.users\.htpasswd/,
  ],
  [
    'a console outside the cluster without TLS',
    { console: { users: { htpasswd: 'x' }, ingress: { enabled: true, host: 'a.example' } } },
    /without TLS/,
  ],
  ['a console at no Gateway', { console: { users: { htpasswd: 'x' }, httpRoute: { enabled: true } } }, /console\.httpRoute\.parentRefs/],
  [
    'a disabled console with an Ingress',
    { console: { enabled: false, ingress: { enabled: true, host: 'a', tlsSecret: 'x' } } },
    /console\.enabled: true/,
  ],
  ['an exposed registry without passwords', { registry: { exposed: { enabled: true, tlsSecret: 'x' } } }, /registry\.exposed\.htpasswd/],
  [
    "the registry's listener in its config",
    { registry: { config: { listen: '0.0.0.0:80' } } },
    /registry\.config\.listen is set by the chart/,
  ],
  ["the agent's listener in its config", { agent: { config: { listen: '127.0.0.1:1' } } }, /agent\.config\.listen is set by the chart/],
  ["the webhook's listener in its config", { webhook: { config: { admin: '0.0.0.0:1' } } }, /webhook\.config\.admin is set by the chart/],
  ["the agent's port twice", { agent: { port: 25001 } }, /agent\.extraPorts contain the same port twice/],
  [
    'the port for other nodes twice',
    { agent: { share: { enabled: true, port: 25001 } } },
    /agent\.share\.port and agent\.extraPorts contain the same port/,
  ],
  ['an extra port that is the current one', { agent: { extraPorts: [25000] } }, /the same port twice: write different ones/],
  ["the webhook's port twice", { webhook: { port: 8444 } }, /webhook\.port and webhook\.adminPort are the same/],
  ['an unknown key', { registry: { replica: 2 } }, /at '\/registry': additional properties 'replica' not allowed/],
  ['an unknown section', { regisrty: {} }, /additional properties 'regisrty' not allowed/],
  [
    'an unknown key of the configuration',
    { registry: { config: { cache: { tagTTL: '5m' } } } },
    /at '\/registry\/config\/cache': additional properties 'tagTTL'/,
  ],
  [
    'an unknown key of an upstream',
    { registry: { upstreams: { dockerhub: { mirror: [] } } } },
    /additional properties 'mirror' not allowed/,
  ],
  ['an unknown key of the former chart', { zot: { replicas: 2 } }, /at '\/zot': additional properties 'replicas'/],
  ['a wrong type', { agent: { port: 'high' } }, /at '\/agent\/port': got string, want integer/],
  ['a wrong duration', { registry: { config: { cache: { tagTtl: '5 minutes' } } } }, /at '\/registry\/config\/cache\/tagTtl'/],
  ['a wrong size', { registry: { persistence: { size: 'big' } } }, /at '\/registry\/persistence\/size'/],
  ['a wrong mode', { clash: { ...CLASH, mode: 'fast' } }, /at '\/clash\/mode': value must be one of 'nodes', 'full', 'custom'/],
  ['a subscription that is not a URL', { clash: { enabled: true, subscriptionUrl: 'airport' } }, /clash\.subscriptionUrl is not a URL/],
  ['no replicas', { registry: { replicas: 0 } }, /at '\/registry\/replicas': minimum: got 0, want 1/],
];

for (const [name, values, sentence] of CASES) {
  test(`${name}: nothing is installed, and helm says what to write`, async () => {
    const said = await refusal(values);
    assert.match(said.replaceAll('\n', ' '), sentence);
    assert.doesNotMatch(said, /nil pointer|can't evaluate|wrong type for value/);
  });
}

test("the upstreams that need no url are the program's defaults", async () => {
  const names = Object.keys(DEFAULT_UPSTREAMS);
  const known = Object.fromEntries(names.map((name) => [name, { connections: 2 }]));
  const said = await refusal({ registry: { upstreams: { ...known, mine: { connections: 2 } } } });
  const expected = `registry.upstreams.mine is not one of the defaults (${names.join(', ')}): write its url.`;
  assert.deepEqual(said.match(/registry\.upstreams\..*$/gm), [expected]);
  const comment = await readFile(join(import.meta.dirname, 'values.yaml'), 'utf8');
  assert.ok(comment.includes(`merged over the defaults (${names.join(', ')}) by name`));
});

test('all that is wrong is said at once', async () => {
  const said = await refusal({ registry: { replicas: 3 }, clash: { enabled: true }, agent: { enabled: false } });
  for (const sentence of [/registry\.replicas is 3/, /clash\.enabled is true/, /agent\.enabled is false/]) assert.match(said, sentence);
});

test('a secret that is refused is not repeated', async () => {
  const said = await refusal({
    clash: { enabled: true, subscriptionUrl: 'sentinel' },
    registry: { s3: { secret: { accessKeyId: 'sentinel' } } },
  });
  assert.doesNotMatch(said, /sentinel/);
});
