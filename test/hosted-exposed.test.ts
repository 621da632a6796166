import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { request } from 'node:https';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { hash } from '@node-rs/bcrypt';
import { makeCertificate } from './support/certificate.ts';
import { AUTHORIZATION, startHosted, USER } from './support/hosted.ts';
import { makeImage } from './support/image.ts';
import { startScriptedUpstream } from './support/scripted-upstream.ts';
import { freePort, temporaryDirectory } from './support/temporary.ts';
import { toolPath } from './tools/tools.ts';

const run = promisify(execFile);
const basic = (user: string, password: string) => `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;

test('users of registry.users push over the exposed listener, where those of its own htpasswd pull', async () => {
  await using folder = await temporaryDirectory();
  await using upstream = await startScriptedUpstream();
  upstream.add('library/demo', '1', makeImage({ seed: 'public', architectures: ['amd64'], layers: [1000] }));
  const { certificate, key } = await makeCertificate(folder.path);
  const htpasswd = join(folder.path, 'htpasswd');
  await writeFile(htpasswd, `ann:${await hash('right', 5)}\nci:${await hash('of ann', 5)}\n`);
  const host = `127.0.0.1:${await freePort()}`;
  const exposed = { listen: host, htpasswd, tls: { certFile: certificate, keyFile: key } };
  await using world = await startHosted({ more: { exposed, upstreams: { dockerhub: { url: upstream.url } } } });
  const crane = await toolPath('crane');
  const env = { ...process.env, SSL_CERT_FILE: certificate, DOCKER_CONFIG: join(folder.path, 'docker') };

  await run(crane, ['auth', 'login', host, '-u', USER.username, '-p', USER.password], { env });
  await run(crane, ['copy', '--insecure', `${world.registry.host}/dockerhub/library/demo:1`, `${host}/local/team/app:1`], { env });
  const { stdout } = await run(crane, ['digest', `${host}/local/team/app:1`], { env });
  assert.match(stdout, /^sha256:/);

  const ca = await readFile(certificate);
  const ask = (method: string, path: string, authorization?: string): Promise<number> =>
    new Promise((resolve, reject) => {
      const headers = authorization === undefined ? {} : { authorization };
      const asked = request(`https://${host}${path}`, { method, ca, headers, agent: false }, (response) => {
        response.resume();
        resolve(response.statusCode ?? 0);
      });
      asked.once('error', reject).end();
    });
  const upload = '/v2/local/team/app/blobs/uploads/';
  const cases: [string, string | undefined, [number, number, number, number]][] = [
    // Its rights: log in, pull hosted images, push, pull images of upstreams.
    ['nobody', undefined, [401, 401, 401, 401]],
    ['a user of registry.users', AUTHORIZATION, [200, 200, 202, 401]],
    ['a user of the listener', basic('ann', 'right'), [200, 200, 401, 200]],
    ['a user of the listener with the name of one of registry.users', basic('ci', 'of ann'), [200, 200, 401, 200]],
    ['a user of registry.users without rights', basic('other', 'other'), [200, 200, 403, 401]],
    ['a wrong password', basic('ci', 'wrong'), [401, 401, 401, 401]],
  ];
  for (let turn = 0; turn < 2; turn++) {
    for (const [name, login, expected] of cases) {
      const statuses = [
        await ask('GET', '/v2/', login),
        await ask('GET', '/v2/local/team/app/manifests/1', login),
        await ask('POST', upload, login),
        await ask('GET', '/v2/dockerhub/library/demo/manifests/1', login),
      ];
      assert.deepEqual(statuses, expected, name);
    }
  }
});
