import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { request } from 'node:https';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { hash } from '@node-rs/bcrypt';
import { recordCompatibility, versionOf } from './support/compatibility.ts';
import { makeCertificate } from './support/certificate.ts';
import { makeImage } from './support/image.ts';
import { startRegistry } from './support/program.ts';
import { startScriptedUpstream } from './support/scripted-upstream.ts';
import { freePort, temporaryDirectory } from './support/temporary.ts';
import { debianTool, toolPath } from './tools/tools.ts';

// registry.exposed: a second listener, for clients outside, with TLS and passwords.

const run = promisify(execFile);
const resources = new AsyncDisposableStack();
const image = makeImage({ layers: [200_000, 1_000_000], gzip: true });
let directory: string;
let host: string;
let ca: string;

before(async () => {
  directory = resources.use(await temporaryDirectory()).path;
  const upstream = resources.use(await startScriptedUpstream());
  upstream.add('library/demo', '1', image);
  const { certificate, key } = await makeCertificate(directory);
  ca = certificate;
  const htpasswd = join(directory, 'htpasswd');
  await writeFile(htpasswd, `ann:${await hash('right', 10)}\n`);
  host = `127.0.0.1:${await freePort()}`;
  resources.use(
    await startRegistry({
      storage: { filesystem: { directory: join(directory, 'data') } },
      upstreams: { dockerhub: { url: upstream.url } },
      exposed: { listen: host, htpasswd, tls: { certFile: certificate, keyFile: key } },
    }),
  );
});
after(() => resources.disposeAsync());

async function assertWhole(layout: string): Promise<void> {
  for (const { manifest, config, layers } of image.platforms) {
    for (const { digest, bytes } of [manifest, config, ...layers]) {
      assert.ok(bytes.equals(await readFile(join(layout, 'blobs', digest.replace(':', '/')))), digest);
    }
  }
}

test('promise 12: on the exposed listener crane and skopeo need the right password', async () => {
  const [crane, skopeo] = await Promise.all([toolPath('crane'), debianTool('skopeo')]);
  const name = `${host}/dockerhub/library/demo:1`;
  const env = { ...process.env, SSL_CERT_FILE: ca, DOCKER_CONFIG: join(directory, 'docker') };
  await assert.rejects(run(crane, ['manifest', name], { env }), /UNAUTHORIZED|401/);
  await run(crane, ['auth', 'login', host, '-u', 'ann', '-p', 'right'], { env });
  await run(crane, ['pull', '--format=oci', name, join(directory, 'crane')], { env });
  await assertWhole(join(directory, 'crane'));

  const certificates = join(directory, 'certs');
  await mkdir(certificates);
  await writeFile(join(certificates, 'ca.crt'), await readFile(ca));
  const copy = (password: string, to: string) =>
    run(skopeo, ['copy', '--all', `--src-creds=ann:${password}`, `--src-cert-dir=${certificates}`, `docker://${name}`, `oci:${to}:1`]);
  await assert.rejects(copy('wrong', join(directory, 'never')), /unauthorized|invalid username\/password|401/i);
  await copy('right', join(directory, 'skopeo'));
  await assertWhole(join(directory, 'skopeo'));
  for (const [tool, program, argument] of [
    ['crane', crane, 'version'],
    ['skopeo', skopeo, '--version'],
  ] as const) {
    recordCompatibility(import.meta.filename, {
      kind: 'client',
      name: tool,
      version: await versionOf(program, argument),
      works: true,
      what: {
        en: 'pulls from the exposed listener over TLS with a password, and is refused without the right one',
        zh: '经 TLS 用密码从对外监听端口拉取,密码不对则被拒绝',
      },
    });
  }
});

test('bcrypt runs for the first request only: a verified password is not hashed again', async (t) => {
  const trusted = await readFile(ca);
  const ask = (password: string): Promise<number> =>
    new Promise((resolve, reject) => {
      const authorization = `Basic ${Buffer.from(`ann:${password}`).toString('base64')}`;
      request(`https://${host}/v2/`, { ca: trusted, headers: { authorization } }, (response) => {
        response.resume().once('end', () => resolve(response.statusCode ?? 0));
      })
        .once('error', reject)
        .end();
    });
  /** Requests a second, one after the other over one connection. */
  async function rate(count: number, password: (index: number) => string, status: number): Promise<number> {
    const started = performance.now();
    for (let index = 0; index < count; index++) assert.equal(await ask(password(index)), status);
    return (1000 * count) / (performance.now() - started);
  }
  await rate(20, () => 'right', 200);
  const computed = await rate(20, (index) => `wrong ${index}`, 401);
  const remembered = await rate(300, () => 'right', 200);
  t.diagnostic(
    `${remembered.toFixed(0)} requests a second instead of ${computed.toFixed(0)}: ${(remembered / computed).toFixed(0)} times as many`,
  );
  assert.ok(remembered > 3 * computed);
});
