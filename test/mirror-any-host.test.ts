import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { makeCertificate } from './support/certificate.ts';
import { startConnectProxy, type ConnectProxy } from './support/connect-proxy.ts';
import { startContainerd } from './support/containerd.ts';
import { startDistribution, type Distribution } from './support/distribution.ts';
import { makeImage, pushImage } from './support/image.ts';
import { startAgent, startRegistry } from './support/program.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { until } from './support/until.ts';

// Mirror mode with `registry.otherHosts: ["*"]`. The host's name does not resolve: only the
// registry reaches it, through a proxy.

const HOST = 'registry.example.net';
const image = makeImage({ architectures: ['amd64'], seed: 'any host' });
const stack = new AsyncDisposableStack();
let upstream: Distribution;
let proxy: ConnectProxy;
let folders: string;

before(async () => {
  const { path } = stack.use(await temporaryDirectory());
  const directory = join(path, 'upstream');
  {
    await using open = await startDistribution({ directory });
    await pushImage(open.url, 'team/app', '1', image);
  }
  const tls = await makeCertificate(path, [HOST]);
  upstream = stack.use(await startDistribution({ directory, tls }));
  proxy = stack.use(await startConnectProxy(Number(upstream.host.split(':')[1])));
  folders = join(path, 'certs.d');
  const otherHosts = ['*'];
  const registry = stack.use(await startRegistry({ otherHosts, proxy: proxy.url }, { env: { NODE_EXTRA_CA_CERTS: tls.certificate } }));
  stack.use(await startAgent({ registry: registry.url, mirror: { directory: folders } }, { registry: { otherHosts } }));
  await until(() => readFile(join(folders, '_default/hosts.toml')).then(Boolean, () => false), 'hosts.toml is written');
});
after(() => stack.disposeAsync());

for (const release of ['debian', '2.4'] as const) {
  test(`promise 17: containerd ${release} in mirror mode pulls an image of a host that is not configured, through the agent`, async () => {
    await using containerd = await startContainerd({ release, configPath: folders });
    await containerd.cri('pull', `${HOST}/team/app:1`);
    assert.match(await containerd.ctr('--namespace', 'k8s.io', 'images', 'list'), new RegExp(image.root.digest));
    assert.deepEqual([...new Set(proxy.asked)], [`${HOST}:443`]);
    const layers = image.platforms.flatMap((platform) => platform.layers.map(({ digest }) => digest));
    for (const layer of layers) {
      const sent = upstream.requests().filter(({ method, path, status }) => method === 'GET' && path.endsWith(layer) && status === 200);
      assert.equal(sent.length, 1, 'upstream has sent it once, for both');
    }
  });
}
