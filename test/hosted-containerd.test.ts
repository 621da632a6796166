import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startContainerd } from './support/containerd.ts';
import { AUTHORIZATION, startHosted, USER } from './support/hosted.ts';
import { makeImage, pushImage, sha256 } from './support/image.ts';

/** BuildKit, nerdctl and Docker's engine with the image store of containerd push by the same code:
 *  core/remotes/docker. */
test('containerd 1.6 and 2.4 push images that they have pulled, with a login', async () => {
  await using world = await startHosted();
  const { url, host } = world.registry;
  const image = makeImage({ seed: 'containerd' });
  await pushImage(url, 'local/from', '1', image, AUTHORIZATION);
  for (const release of ['debian', '2.4'] as const) {
    await using containerd = await startContainerd({ release });
    const target = `local/by/containerd-${release}`;
    await containerd.ctr('images', 'pull', '--plain-http', '--all-platforms', `${host}/local/from:1`);
    await containerd.ctr('images', 'tag', `${host}/local/from:1`, `${host}/${target}:1`);
    await assert.rejects(containerd.ctr('images', 'push', '--plain-http', `${host}/${target}:1`), /401|Unauthorized|authoriz/i);
    await containerd.ctr('images', 'push', '--plain-http', '--user', `${USER.username}:${USER.password}`, `${host}/${target}:1`);
    const parts = [image.root, ...image.platforms.flatMap(({ manifest, config, layers }) => [manifest, config, ...layers])];
    for (const { digest, mediaType } of parts) {
      const kind = /manifest|index/.test(mediaType) ? 'manifests' : 'blobs';
      const response = await fetch(`${url}/v2/${target}/${kind}/${digest}`);
      assert.equal(response.status, 200, `${release}: ${digest}`);
      assert.equal(sha256(Buffer.from(await response.arrayBuffer())), digest, release);
    }
    assert.equal((await fetch(`${url}/v2/${target}/manifests/1`)).headers.get('docker-content-digest'), image.root.digest, release);
  }
});
