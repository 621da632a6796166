import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { debianTool, toolPath } from '../tools/tools.ts';
import { startContainerd } from './containerd.ts';
import { startDistribution } from './distribution.ts';
import { makeImage, pushImage, writeLayout } from './image.ts';
import { startAirport, startMihomo } from './mihomo.ts';
import { freePort, temporaryDirectory } from './temporary.ts';
import { startTokenServer } from './token-server.ts';
import { startVersitygw } from './versitygw.ts';

// The real servers work together as the other tests assume.

const run = promisify(execFile);
const image = makeImage({ layers: [1000, 300_000] });
const tag = 'library/thing';

for (const storage of ['a filesystem', 'S3']) {
  test(`crane and skopeo copy an image from a registry on ${storage}, which keeps its content while stopped`, async () => {
    await using s3 = await startVersitygw();
    await using registry = await startDistribution(storage === 'S3' ? { s3 } : {});
    await using directory = await temporaryDirectory();
    await pushImage(registry.url, tag, '1', image);
    await registry.stop();
    await registry.start();

    const { stdout } = await run(await toolPath('crane'), ['digest', `${registry.host}/${tag}:1`]);
    assert.equal(stdout.trim(), image.root.digest);
    const target = `oci:${join(directory.path, 'copy')}:1`;
    await run(await debianTool('skopeo'), ['copy', '--all', '--src-tls-verify=false', `docker://${registry.host}/${tag}:1`, target]);
    assert.ok(registry.requests().some(({ method, path, status }) => method === 'GET' && path.includes('/blobs/') && status === 200));
  });
}

test('crane pushes an image layout', async () => {
  await using registry = await startDistribution();
  await using directory = await temporaryDirectory();
  await writeLayout(directory.path, image);
  await run(await toolPath('crane'), ['push', directory.path, `${registry.host}/${tag}:1`, '--index']);
  const response = await fetch(`${registry.url}/v2/${tag}/manifests/${image.root.digest}`);
  assert.equal(response.status, 200);
});

for (const release of ['debian', '2.4'] as const) {
  test(`containerd ${release} pulls and unpacks an image, by ctr and as the kubelet does`, async () => {
    await using registry = await startDistribution();
    await pushImage(registry.url, tag, '1', image);
    await using containerd = await startContainerd({ release });
    const name = `${registry.host}/${tag}:1`;
    await containerd.ctr('images', 'pull', '--plain-http', name);
    assert.match(await containerd.ctr('images', 'ls'), new RegExp(image.root.digest));
    await containerd.cri('pull', name);
    assert.match(await containerd.cri('list'), /library\/thing/);
  });
}

test('a registry with a token server serves only clients that may pull', async () => {
  await using tokens = await startTokenServer({ accounts: { alice: 'secret' } });
  await using registry = await startDistribution({ auth: { token: tokens } });
  await using layout = await temporaryDirectory();
  await writeLayout(layout.path, image);
  const skopeo = await debianTool('skopeo');
  const name = `docker://${registry.host}/acme/thing:1`;
  await run(skopeo, ['copy', '--all', '--dest-tls-verify=false', '--dest-creds=alice:secret', `oci:${layout.path}`, name]);
  await assert.rejects(run(skopeo, ['inspect', '--tls-verify=false', '--no-creds', name]), /unauthorized|denied/);
  const { stdout } = await run(skopeo, ['inspect', '--tls-verify=false', '--creds=alice:secret', name]);
  assert.equal((JSON.parse(stdout) as { Name: string }).Name, `${registry.host}/acme/thing`);
});

test('mihomo goes through an airport, which counts the bytes', async () => {
  await using registry = await startDistribution();
  await pushImage(registry.url, tag, '1', image);
  await using airport = await startAirport({ hosts: { 'hub.test': '127.0.0.1' } });
  const port = await freePort();
  await using proxy = await startMihomo({
    'mixed-port': port,
    mode: 'rule',
    proxies: [airport.node],
    rules: [`MATCH,${airport.node.name}`],
  });
  const { stdout } = await run(await toolPath('crane'), ['digest', `hub.test:${registry.host.split(':')[1]}/${tag}:1`, '--insecure'], {
    env: { ...process.env, HTTP_PROXY: `http://127.0.0.1:${port}` },
  });
  assert.equal(stdout.trim(), image.root.digest);
  assert.ok((await airport.traffic()).downloadTotal > 0);
  assert.ok((await proxy.traffic()).downloadTotal > 0);
});
