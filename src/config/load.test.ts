import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { temporaryDirectory } from '../../test/support/temporary.ts';
import { ConfigError, loadConfig, parseConfig, requireFiles } from './load.ts';

const SECRET = 'Secret-9471';

/** The configuration, and the parts of the message: the key, the found value, and the accepted
 *  values. */
const WRONG: [set: string, key: string, found: string, accepted: RegExp][] = [
  ['registry.lsten=1', 'registry.lsten', 'unknown key', /listen, admin, console, .*storage, local/],
  ['registry.listen=foo', 'registry.listen', '"foo"', /127\.0\.0\.1:5000/],
  ['registry.listen=127.0.0.1:99999', 'registry.listen', '"127.0.0.1:99999"', /127\.0\.0\.1:5000/],
  ['registry.cache.tagTtl=5x', 'registry.cache.tagTtl', '"5x"', /300ms, 10s, 5m/],
  ['registry.cache.tagTtl=5', 'registry.cache.tagTtl', '5', /300ms, 10s, 5m/],
  ['registry.local.maxSize=20GX', 'registry.local.maxSize', '"20GX"', /64MiB, 100GiB/],
  ['registry.cache=7', 'registry.cache', '7', /object/],
  ['registry.storage={s3: {bucket: a}, filesystem: {}}', 'registry.storage', 'the keys s3, filesystem', /exactly one/],
  ['registry.storage.s3.region=x', 'registry.storage.s3.bucket', 'nothing', /text/],
  [`registry.storage.s3={bucket: a, secretAccessKey: ${SECRET}}`, 'registry.storage.s3', 'the keys', /together, or neither/],
  [`registry.storage.s3={bucket: a, accessKeyId: [${SECRET}]}`, 'registry.storage.s3.accessKeyId', 'a list', /text/],
  ['registry.upstreams.mine.hosts=[a]', 'registry.upstreams.mine.url', 'nothing', /URL of this upstream/],
  [
    'registry.upstreams.mine={url: http://a, hosts: [docker.io]}',
    'registry.upstreams.mine.hosts',
    'a list',
    /already belongs to upstream dockerhub/,
  ],
  ['registry.upstreams.Mine.url=http://a', 'registry.upstreams.Mine', '', /lower-case/],
  ['registry.upstreams.dockerhub.url=ftp://a', 'registry.upstreams.dockerhub.url', 'not shown', /http:\/\/ or https:\/\//],
  [`registry.upstreams.dockerhub.url=http://a:${SECRET}@b`, 'registry.upstreams.dockerhub.url', 'not shown', /without a user and password/],
  ['registry.upstreams.dockerhub.connections=99', 'registry.upstreams.dockerhub.connections', '99', /from 1 to 16/],
  [`registry.proxy=ftp://a:${SECRET}@b`, 'registry.proxy', 'not shown', /direct, or a proxy/],
  ['registry.onProxyFailure=maybe', 'registry.onProxyFailure', '"maybe"', /fail, direct/],
  [
    `registry.upstreams.dockerhub.credentials=[{username: a, password: ${SECRET}, passwordFile: b}]`,
    'registry.upstreams.dockerhub.credentials.0',
    'the keys',
    /one of password and passwordFile/,
  ],
  [`registry.upstreams.dockerhub.credentials=${SECRET}`, 'registry.upstreams.dockerhub.credentials', 'not shown', /list|array/],
  [`agent.registry=${SECRET}`, 'agent.registry', 'not shown', /http:\/\//],
  [`registry.storage={s3: ${SECRET}`, 'registry.storage', 'not YAML', /quote it/],
  ['registry.warm.schedule=61 * * * *', 'registry.warm.schedule', '"61 * * * *"', /five fields/],
  ['registry.warm.schedule=0 0 30 2 *', 'registry.warm.schedule', '"0 0 30 2 *"', /come due/],
  ['registry.upstreams.dockerhub.onDeleted=keep', 'registry.upstreams.dockerhub.onDeleted', '"keep"', /forget, serve/],
  ['registry.peers=', 'registry.peers', 'null', /keys such as service/],
  ['webhook.registryHost=https://registry.example/', 'webhook.registryHost', '', /a host such as registry\.example\.com/],
  ['webhook.registryHost=registry', 'webhook.registryHost', '', /a host such as registry\.example\.com/],
  ['clash.healthCheck.interval=0', 'clash.healthCheck.interval', '0', /at least 1s/],
  ['registry.storage={s3: {bucket: b, redirect: {ttl: 30d}}}', 'registry.storage.s3.redirect.ttl', '"30d"', /from 10s to 7d/],
  ['__proto__.x=1', '__proto__.x', 'unknown key', /./],
];

for (const [set, key, found, accepted] of WRONG) {
  test(`a wrong key stops the program, which says what it found and what it accepts: ${set.replace(SECRET, '…')}`, async () => {
    await assert.rejects(loadConfig({ set: [set] }), (error: Error) => {
      assert.ok(error instanceof ConfigError);
      const line = error.message.split('\n').find((line) => line.startsWith(`${key}: `)) ?? assert.fail(error.message);
      assert.ok(line.includes(found), line);
      assert.match(line, accepted);
      assert.ok(!error.message.includes(SECRET), error.message);
      return true;
    });
  });
}

test('an invalid configuration file is named in the error, without its content', async () => {
  await using directory = await temporaryDirectory();
  const file = join(directory.path, 'config.yaml');
  await assert.rejects(loadConfig({ file }), /config\.yaml cannot be read: ENOENT/);
  for (const [content, message] of [
    [`registry: [${SECRET}`, /config\.yaml is not YAML, line 1/],
    [`registry: {}\nregistry: {a: ${SECRET}}`, /config\.yaml is not YAML, line 2: DUPLICATE_KEY/],
    [`- ${SECRET}`, /config\.yaml: expected keys such as registry/],
  ] as const) {
    await writeFile(file, content);
    await assert.rejects(loadConfig({ file }), (error: Error) => {
      assert.match(error.message, message);
      assert.ok(!error.message.includes(SECRET));
      return true;
    });
  }
  await writeFile(file, '');
  assert.deepEqual(await loadConfig({ file }), parseConfig({}));
  assert.deepEqual(await loadConfig({ file: '' }), parseConfig({})); // of KUBE_REGISTRY_CONFIG=""
});

test('a configured file that cannot be read is reported at start', async () => {
  await using directory = await temporaryDirectory();
  const file = join(directory.path, 'password');
  const section = { upstreams: { hub: { credentials: [{ username: 'a', passwordFile: file }] } } };
  await assert.rejects(requireFiles(section, 'registry'), (error: Error) => {
    assert.ok(error instanceof ConfigError);
    assert.ok(error.message.startsWith(`registry.upstreams.hub.credentials.0.passwordFile: found ${file}, which cannot be read (ENOENT)`));
    return true;
  });
  await writeFile(file, '');
  await requireFiles(section, 'registry');
});

/** A setting, and an equivalent one. */
const SAME: [written: string, as: unknown][] = [
  ['registry:\nagent:\n', {}],
  ['registry:\n  storage:\n  local:\n  cache: # nothing\n  upstreams:\n', {}],
  ['webhook: { exclude: { namespaces: , images: } }', {}],
  ['registry: { upstreams: { dockerhub: { mirrors: } } }', { registry: { upstreams: { dockerhub: {} } } }],
  ['registry: { cache: { maxSize: "0", maxAge: "0" } }', {}],
  [
    'registry: { upstreams: { a: &a { url: "http://a", connections: 2 }, b: { <<: *a, url: "http://b" } } }',
    { registry: { upstreams: { a: { url: 'http://a', connections: 2 }, b: { url: 'http://b', connections: 2 } } } },
  ],
];

for (const [written, as] of SAME) {
  test(`a list or section that is left empty is as if not written, a merge key merges: ${written.replaceAll('\n', '⏎')}`, async () => {
    await using directory = await temporaryDirectory();
    const file = join(directory.path, 'config.yaml');
    await writeFile(file, written);
    assert.deepEqual(await loadConfig({ file }), parseConfig(as));
  });
}

test('--set accepts an address in brackets', async () => {
  assert.deepEqual((await loadConfig({ set: ['registry.listen=[::1]:5000'] })).registry.listen, { host: '::1', port: 5000 });
});
