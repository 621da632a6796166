import assert from 'node:assert/strict';
import { test } from 'node:test';
import { configSchema } from '../config/schema.ts';
import type { Fields } from '../io/untrusted.ts';
import { createSecretIndex } from '../pull-secrets/secret-index.ts';
import { createPolicy } from './policy.ts';
import { reportPods } from './report.ts';

const KEY = 'a key of more than 16 characters';
const index = createSecretIndex(KEY, { keepsPasswords: false });
const login = (user: string) => ({ auth: Buffer.from(`${user}:pw`).toString('base64') });
function add(name: string, auths: unknown): void {
  const config = typeof auths === 'string' ? auths : JSON.stringify({ auths });
  const data = { '.dockerconfigjson': Buffer.from(config).toString('base64') };
  index.set(`team/${name}`, { metadata: { namespace: 'team', name, uid: name }, type: 'kubernetes.io/dockerconfigjson', data }, 'w');
}
add('ghcr', { 'ghcr.io/acme': login('a'), 'ghcr.io': login('b') });
add('again', { 'ghcr.io/acme': login('a') });
add('hub', { 'https://index.docker.io/v1/': login('h') });
add('internal', { 'registry.internal.example.com': login('i') });
add('broken', '{');
add('many', Object.fromEntries(Array.from({ length: 1000 }, (_, n) => [`r${n}.example.com`, login('m')])));
for (let n = 0; n < 9; n++) add(`user${n}`, { 'ghcr.io': login(`user${n}`) });

const id = (name: string, entry = 0): string => index.find(`team/${name}`)?.entries[entry]?.id ?? '';

interface Options {
  webhook?: Record<string, unknown>;
  upstreams?: Record<string, unknown>;
  reads?: boolean;
}

function policyOf({ webhook = {}, upstreams = {}, reads = true }: Options) {
  const config = configSchema.parse({ webhook: { pullSecrets: 'use', ...webhook }, registry: { upstreams } });
  return createPolicy(config.webhook, config.registry.upstreams, {
    otherHosts: config.registry.otherHosts,
    secretsOf: (namespace, names) => (reads ? names.map((name) => index.find(`${namespace}/${name}`)) : undefined),
  });
}

function podOf(image: string, secrets: readonly string[]): Fields {
  return { spec: { containers: [{ name: 'a', image }], imagePullSecrets: secrets.map((name) => ({ name })) } };
}

/** The rewritten name without the registry's host, or why the image keeps its own. */
function decide(image: string, secrets: readonly string[], options: Options = {}): string {
  const pod = podOf(image, secrets);
  const decided = policyOf(options).images(pod, 'team')({ name: 'a', path: '', image, pullPolicy: undefined });
  return 'image' in decided ? decided.image.slice('127.0.0.1:25000/'.length) : `(${decided.reason})`;
}

const APP = 'ghcr.io/acme/app:1';
const DIGEST = `@sha256:${'a'.repeat(64)}`;

test('promise 18: an image that a pull secret is for gets a name with the id of the entry; all others are public', () => {
  const rows: [image: string, secrets: string[], name: string][] = [
    [APP, ['again'], `by-${id('again')}/ghcr/acme/app:1`],
    [APP + DIGEST, ['again'], `by-${id('again')}/ghcr/acme/app:1${DIGEST}`],
    ['ghcr.io/other/app:1', ['again'], 'ghcr/other/app:1'],
    ['acme/app', ['hub'], `by-${id('hub')}/dockerhub/acme/app`],
    ['index.docker.io/acme/app', ['hub'], `by-${id('hub')}/dockerhub/acme/app`],
    ['nginx', ['hub'], 'dockerhub/library/nginx'],
    [APP, ['internal'], 'ghcr/acme/app:1'],
    [APP, [], 'ghcr/acme/app:1'],
    ['mcr.microsoft.com/a/b', ['hub'], 'mcr.microsoft.com/a/b'],
    ['registry.internal.example.com/app', ['internal'], '(other-registry)'],
  ];
  for (const [image, secrets, name] of rows) assert.equal(decide(image, secrets), name, `${image} with ${secrets.join(', ')}`);
});

test('promise 18: several entries are several ids, in the order of the kubelet, each login once', () => {
  assert.equal(decide(APP, ['ghcr']), `by-${id('ghcr')}-${id('ghcr', 1)}/ghcr/acme/app:1`);
  assert.equal(decide(APP, ['again', 'ghcr']), `by-${id('again')}-${id('ghcr', 1)}/ghcr/acme/app:1`);
  assert.equal(decide('ghcr.io/x/y', ['user1', 'user0', 'user1']), `by-${id('user1')}-${id('user0')}/ghcr/x/y`);
});

test('promise 18: images whose new name would be too long are not rewritten, and the report says so', () => {
  const long = (length: number): string => `ghcr.io/${'a'.repeat(length)}`;
  const prefix = `127.0.0.1:25000/by-${id('user0')}/ghcr/`.length;
  assert.match(decide(long(255 - prefix), ['user0']), /^by-/);
  assert.equal(decide(long(256 - prefix), ['user0']), '(name-too-long)');
  const nine = Array.from({ length: 9 }, (_, n) => `user${n}`);
  assert.match(decide('ghcr.io/x/y', nine.slice(0, 8)), /^by-(?:[a-z2-7]{26}-?){8}\/ghcr\/x\/y$/);
  assert.equal(decide('ghcr.io/x/y', nine), '(name-too-long)');
});

test("promise 18: if a pod's secret does not exist yet, or cannot be read, its possibly private images are not rewritten", () => {
  const rows: [image: string, secrets: string[], options: Options, name: string][] = [
    [APP, ['later'], {}, '(secret-missing)'],
    [APP, ['again', 'later'], {}, '(secret-missing)'],
    ['nginx', ['later'], {}, 'dockerhub/library/nginx'],
    [APP, ['default-secret'], {}, 'ghcr/acme/app:1'],
    [APP, ['again', 'default-secret'], {}, `by-${id('again')}/ghcr/acme/app:1`],
    [APP, ['broken'], {}, '(secret-unusable)'],
    [APP, ['again'], { reads: false }, '(pull-secret)'],
    [APP, ['default-secret'], { reads: false }, 'ghcr/acme/app:1'],
    [APP, Array.from({ length: 65 }, (_, n) => `s${n}`), {}, '(pull-secret)'],
  ];
  for (const [image, secrets, options, name] of rows) assert.equal(decide(image, secrets, options), name, secrets.join(', '));
});

test('promise W5: skip keeps the images that a secret is for, and no others, where Secrets may be read', () => {
  const webhook = { pullSecrets: 'skip' };
  assert.equal(decide(APP, ['again'], { webhook }), '(private)');
  assert.equal(decide(APP, ['hub'], { webhook }), 'ghcr/acme/app:1');
  assert.equal(decide(APP, ['later'], { webhook }), '(secret-missing)');
  assert.equal(decide(APP, ['hub'], { webhook, reads: false }), '(pull-secret)');
});

test('credentials of the configuration, public repositories and rewrite go before the secrets of a pod', () => {
  const credentials = [{ repositories: 'acme/', username: 'u', password: 'p' }];
  assert.equal(decide(APP, ['again'], { upstreams: { ghcr: { credentials } } }), 'ghcr/acme/app:1');
  assert.equal(decide(APP, ['again'], { webhook: { publicRepositories: ['ghcr.io/acme/*'] } }), 'ghcr/acme/app:1');
  assert.equal(decide(APP, ['again'], { webhook: { pullSecrets: 'rewrite' } }), 'ghcr/acme/app:1');
});

test('promise 18: a name is for the Secrets of its namespace as they are now', () => {
  const policy = policyOf({});
  const nameIn = (namespace: string, secrets: readonly string[]): string => {
    const decided = policy.images(podOf(APP, secrets), namespace)({ name: 'a', path: '', image: APP, pullPolicy: undefined });
    return 'image' in decided ? decided.image.slice('127.0.0.1:25000/'.length) : `(${decided.reason})`;
  };
  add('changing', { 'ghcr.io/acme': login('c') });
  const first = nameIn('team', ['changing']);
  assert.equal(first, `by-${id('changing')}/ghcr/acme/app:1`);
  assert.equal(nameIn('team', ['changing']), first);
  assert.equal(nameIn('other', ['changing']), '(secret-missing)');
  assert.equal(nameIn('team', ['changing', 'user0']), `by-${id('changing')}-${id('user0')}/ghcr/acme/app:1`);
  assert.equal(nameIn('team', ['hub', 'changing']), first);
  add('changing', { 'ghcr.io': login('c'), 'ghcr.io/acme': login('d') });
  assert.equal(nameIn('team', ['changing']), `by-${id('changing', 1)}-${id('changing')}/ghcr/acme/app:1`);
  add('changing', { 'quay.io': login('c') });
  assert.equal(nameIn('team', ['changing']), 'ghcr/acme/app:1');
  add('changing', '{');
  assert.equal(nameIn('team', ['changing']), '(secret-unusable)');
  index.remove('team/changing', 'w');
  assert.equal(nameIn('team', ['changing']), '(secret-missing)');
  add('changing', { 'ghcr.io/acme': login('c') });
  const next = nameIn('team', ['changing']);
  assert.match(next, /^by-/);
  index.useKey('another key of 16 characters');
  assert.equal(nameIn('team', ['changing']), `by-${id('changing')}/ghcr/acme/app:1`);
  assert.notEqual(nameIn('team', ['changing']), next);
  index.useKey(KEY);
});

test('a pod with many images and many entries is handled in time: images beyond the limit are not rewritten', () => {
  const pod = podOf(APP, ['many', 'again']);
  const decide = policyOf({}).images(pod, 'team');
  const started = performance.now();
  const reasons = Array.from({ length: 2_000 }, (_, n) => {
    const decided = decide({ name: 'a', path: '', image: `ghcr.io/acme/app-${n}`, pullPolicy: undefined });
    return 'reason' in decided ? decided.reason : 'rewritten as private';
  });
  assert.ok(performance.now() - started < 5_000);
  assert.equal(reasons[0], 'rewritten as private');
  assert.equal(reasons.at(-1), 'pull-secret');
});

test('the report shows no id', () => {
  const pod = podOf(`127.0.0.1:25000/by-${id('ghcr')}-${id('again')}/ghcr/acme/app:1`, ['ghcr']);
  const [line] = reportPods([{ ...pod, metadata: { namespace: 'team', name: 'p' } }], policyOf({}));
  assert.equal(line?.image, '127.0.0.1:25000/by-…/ghcr/acme/app:1');
  assert.equal(line.reason, 'rewritten');
});
