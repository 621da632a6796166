import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { fullNames } from '../oci/image-name.ts';
import { DockerConfigError, readDockerConfig } from './docker-config.ts';
import { covers, parseImageRepository, parseScope, selectEntries } from './keyring.ts';

interface Case {
  name: string;
  image: string;
  dockerconfigjson?: string[];
  dockercfg?: string[];
  /** The kubelet's result (test/kubelet-keyring); null: it rejects the secrets. */
  logins: string[] | null;
}

const cases = JSON.parse(await readFile(join(import.meta.dirname, 'kubelet-keyring.json'), 'utf8')) as Case[];

function entriesOf({ dockerconfigjson = [], dockercfg = [] }: Case) {
  const secrets = [
    ...dockerconfigjson.map((config) => ['kubernetes.io/dockerconfigjson', '.dockerconfigjson', config] as const),
    ...dockercfg.map((config) => ['kubernetes.io/dockercfg', '.dockercfg', config] as const),
  ].map(([type, key, config]) => ({ type, data: { [key]: Buffer.from(config).toString('base64') } }));
  return secrets.flatMap(readDockerConfig).flatMap((login) => {
    const scope = parseScope(login.registry);
    return scope === undefined ? [] : [{ ...login, scope }];
  });
}

function ours(one: Case): string[] | null {
  try {
    const [repository = ''] = fullNames(one.image);
    return selectEntries(entriesOf(one), parseImageRepository(repository)).map(({ username, password }) => `${username}:${password}`);
  } catch (error) {
    if (error instanceof DockerConfigError) return null;
    throw error;
  }
}

test('promise 18: for every image, the entries are those that the kubelet selects, in the same order', () => {
  assert.ok(cases.length > 130);
  assert.equal(new Set(cases.map(({ name }) => name)).size, cases.length);
  for (const one of cases) {
    // No container runtime can use a login without a user name: it answers "invalid auth config".
    const expected = one.logins && one.logins.filter((login) => !login.startsWith(':'));
    assert.deepEqual(ours(one), expected, one.name);
  }
});

test('a selected entry covers the image by itself, and no other entry is sent to its registry', () => {
  for (const one of cases.filter(({ logins }) => logins !== null)) {
    const repository = parseImageRepository(fullNames(one.image)[0] ?? '');
    const entries = entriesOf(one);
    const selected = selectEntries(entries, repository);
    for (const entry of selected) assert.ok(covers(entry.scope, repository), one.name);
    if (selected.length === 0) assert.ok(!entries.some(({ scope }) => covers(scope, repository)), one.name);
  }
});

test('keys that are made to be slow are compared in time', () => {
  const hostile = [`${'*a'.repeat(400)}b.example.com`, `${'*'.repeat(1000)}.example.com`, `${'*a*b'.repeat(200)}.example.com`];
  const repository = parseImageRepository(`${'a'.repeat(63)}.example.com/app`);
  const started = performance.now();
  for (const key of hostile) for (let n = 0; n < 100; n++) parseScope(key)?.matches(repository);
  assert.ok(performance.now() - started < 5_000);
  assert.equal(parseScope('a'.repeat(1025)), undefined);
});
