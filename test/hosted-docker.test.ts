import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { hash } from '@node-rs/bcrypt';
import { makeCertificate } from './support/certificate.ts';
import { recordCompatibility } from './support/compatibility.ts';
import { startDistribution, type Distribution } from './support/distribution.ts';
import { startDockerd, type Docker, type ImageStore } from './support/dockerd.ts';
import { startHosted, USER } from './support/hosted.ts';
import { makeImage } from './support/image.ts';
import { freePort, temporaryDirectory } from './support/temporary.ts';
import { RECIPES } from './tools/recipes.ts';
import { toolPath } from './tools/tools.ts';

const run = promisify(execFile);
const OTHER = { username: 'other', password: 'other' };
const layerOf = (seed: string): Buffer =>
  makeImage({ seed, gzip: true, layers: [3_000_000] }).platforms[0]?.layers[0]?.bytes ?? Buffer.alloc(0);

const STORES: Record<ImageStore, { en: string; zh: string }> = {
  containerd: {
    en: 'with its images in containerd: logs in, pushes, and pulls without a login',
    zh: '镜像存放在 containerd 中:登录、推送,以及无需登录的拉取',
  },
  'graph driver': {
    en: 'with its images in a graph driver, as before Docker 29: logs in, pushes, and pulls without a login',
    zh: '镜像由 graph driver 存放(Docker 29 之前的方式):登录、推送,以及无需登录的拉取',
  },
};

for (const store of ['containerd', 'graph driver'] as const) {
  describe(`Docker's engine with its images in ${store === 'containerd' ? store : `a ${store}`}`, () => {
    const resources = new AsyncDisposableStack();
    let upstream: Distribution;
    let docker: Docker;
    let host: string;
    let exposed: string;

    before(async () => {
      const folder = resources.use(await temporaryDirectory());
      const { certificate, key } = await makeCertificate(folder.path);
      const htpasswd = join(folder.path, 'htpasswd');
      await writeFile(htpasswd, `ann:${await hash('right', 5)}\n`);
      exposed = `127.0.0.1:${await freePort()}`;
      upstream = resources.use(await startDistribution());
      const everything = [{ users: [USER.username] }];
      const hosted = { local: { push: everything }, private: { push: everything, pull: [] } };
      const listener = { listen: exposed, htpasswd, tls: { certFile: certificate, keyFile: key } };
      const more = { hosted, upstreams: { dockerhub: { url: upstream.url } }, exposed: listener };
      ({ host } = resources.use(await startHosted({ more })).registry);
      docker = resources.use(await startDockerd(store));
    });
    after(() => resources.disposeAsync());

    async function pullAgain(image: string, user?: typeof USER): Promise<void> {
      const id = await docker.id(image);
      await docker.remove(image);
      await docker.pull(image, user);
      assert.equal(await docker.id(image), id);
    }

    test('a login tells whether the password is right', async () => {
      await docker.login(host, USER);
      for (const user of [
        { ...USER, password: 'wrong' },
        { ...USER, password: `${USER.password}:` },
        { username: 'nobody', password: 'x' },
      ])
        await assert.rejects(docker.login(host, user), /the user name or the password is wrong/);
    });

    test('users push what they may, everybody pulls it, and layers are pushed once', async () => {
      const [first, second] = [`${host}/local/by/first:1`, `${host}/local/by/second:1`];
      await docker.import(first, layerOf('pushed'));
      await assert.rejects(docker.push(first), /a login is needed to push|no basic auth credentials/);
      await assert.rejects(docker.push(first, { ...USER, password: 'wrong' }), /the password is wrong/);
      await assert.rejects(docker.push(first, OTHER), /other may not push/);
      await docker.push(first, USER);
      assert.match(await docker.push(first, USER), /already exists/i);
      await docker.tag(first, second);
      assert.match(await docker.push(second, USER), /mounted|already exists/i);
      for (const image of [first, second]) await run(await toolPath('crane'), ['validate', '--insecure', '--remote', image]);
      await docker.remove(second);
      await pullAgain(first);
      await docker.pull(second);
      const what = { kind: 'client', name: 'dockerd', version: RECIPES.dockerd.version.slice(1), works: true } as const;
      recordCompatibility(import.meta.filename, { ...what, what: STORES[store] });
    });

    test('repositories that need a login are pulled with one', async () => {
      const image = `${host}/private/app:1`;
      await docker.import(image, layerOf('private'));
      await docker.push(image, USER);
      await pullAgain(image, USER);
      await docker.remove(image);
      await assert.rejects(docker.pull(image), /a login is needed to pull|no basic auth credentials/);
      await assert.rejects(docker.pull(image, OTHER), /other may not pull/);
    });

    test('the exposed listener, which requires a login for every request, takes pushes too', async () => {
      const image = `${exposed}/local/by/exposed:1`;
      await docker.import(image, layerOf('exposed'));
      await docker.login(exposed, USER);
      await docker.push(image, USER);
      await pullAgain(image, USER);
      await docker.remove(image);
      await assert.rejects(docker.pull(image), /a user name and password are required|no basic auth credentials/);
    });

    test('images of upstreams are pulled without a login, and with one', async () => {
      const [source, image] = [`${upstream.host}/library/demo:1`, `${host}/dockerhub/library/demo:1`];
      await docker.import(source, layerOf('upstream'));
      await docker.push(source);
      await docker.tag(source, image);
      await docker.remove(source);
      await pullAgain(image);
      await pullAgain(image, USER);
    });
  });
}
