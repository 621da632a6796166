import assert from 'node:assert/strict';
import { mkdir, readFile, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { startContainerd } from './support/containerd.ts';
import { makeImage, randomBytes, sha256 } from './support/image.ts';
import { startAgent, startRegistry } from './support/program.ts';
import { startScriptedUpstream, type ScriptedUpstream } from './support/scripted-upstream.ts';
import { temporaryDirectory } from './support/temporary.ts';

const MiB = 1024 * 1024;

async function digestOf(url: string, headers: Record<string, string> = {}): Promise<string> {
  const response = await fetch(url, { headers });
  assert.ok(response.ok, `${url}: ${response.status}`);
  return sha256(Buffer.from(await response.arrayBuffer()));
}

function upstreams(upstream: ScriptedUpstream) {
  return { upstreams: { dockerhub: { url: upstream.url } } };
}

for (const release of ['debian', '2.4'] as const) {
  test(`containerd ${release} pulls through the agent without any setting, also when the registry is gone`, async () => {
    await using upstream = await startScriptedUpstream();
    upstream.add('library/demo', '1', makeImage({ architectures: ['amd64'] }));
    await using temporary = await temporaryDirectory();
    await using registry = await startRegistry({ storage: { filesystem: { directory: temporary.path } }, ...upstreams(upstream) });
    await using agent = await startAgent({ registry: registry.url }, { registry: upstreams(upstream) });
    await using containerd = await startContainerd({ release });
    const image = `${agent.host}/dockerhub/library/demo:1`;
    await containerd.cri('pull', image);
    const asked = upstream.requests.length;
    await containerd.cri('remove', image);
    await registry.stop('SIGKILL');
    await containerd.cri('pull', image);
    assert.ok(upstream.requests.length > asked, 'straight from upstream');
  });

  test(`in mirror mode containerd ${release} pulls unmodified names through the agent, and all is as before when it goes`, async () => {
    await using upstream = await startScriptedUpstream();
    upstream.add('library/demo', '1', makeImage({ architectures: ['amd64'] }));
    await using temporary = await temporaryDirectory();
    const certs = join(temporary.path, 'certs.d');
    await mkdir(join(certs, 'quay.io'), { recursive: true });
    await writeFile(join(certs, 'quay.io', 'hosts.toml'), 'server = "https://quay.io"\n');
    await using registry = await startRegistry({
      storage: { filesystem: { directory: join(temporary.path, 'data') } },
      ...upstreams(upstream),
    });
    {
      await using agent = await startAgent({ registry: registry.url, mirror: { directory: certs } }, { registry: upstreams(upstream) });
      const file = join(certs, 'docker.io', 'hosts.toml');
      for (let tries = 0; tries < 50 && !(await readdir(certs)).includes('docker.io'); tries++) await delay(100);
      assert.match(await readFile(file, 'utf8'), new RegExp(`host."http://${agent.host.replaceAll('.', '\\.')}"`));
      await using containerd = await startContainerd({ release, configPath: certs });
      await containerd.cri('pull', 'docker.io/library/demo:1');
      assert.ok(
        agent.log().some(({ path }) => String(path).includes('quay.io')),
        'a file that is not ours is told of',
      );
      await agent.stop();
    }
    assert.deepEqual(await readdir(certs), ['quay.io'], 'what the agent wrote is gone');
    assert.equal(await readFile(join(certs, 'quay.io', 'hosts.toml'), 'utf8'), 'server = "https://quay.io"\n');
  });
}

test('a blob that is cut in the middle goes on from upstream, ranges too', async () => {
  await using upstream = await startScriptedUpstream();
  await using broken = await startScriptedUpstream();
  const bytes = randomBytes('agent', 8 * MiB);
  const digest = upstream.addBlob(bytes);
  broken.addBlob(bytes);
  broken.behave = ({ path }) => (path.includes('/blobs/') ? { cutAfter: 3 * MiB } : {});
  await using agent = await startAgent({ registry: broken.url }, { registry: upstreams(upstream) });
  const url = `${agent.url}/v2/dockerhub/library/demo/blobs/${digest}`;
  assert.equal(await digestOf(url), digest);
  assert.equal(await digestOf(url, { range: 'bytes=1000-' }), sha256(bytes.subarray(1000)));
  assert.ok(upstream.blobBytes() < 1.9 * bytes.length, 'only what was missing');
});

test('a registry that is slow is given time, one that is silent is not waited for, and 404 is an answer', async () => {
  await using upstream = await startScriptedUpstream();
  await using registry = await startScriptedUpstream();
  const digest = upstream.addBlob(randomBytes('slow', MiB));
  registry.addBlob(randomBytes('slow', MiB));
  await using agent = await startAgent({ registry: registry.url }, { registry: upstreams(upstream) });
  const url = `${agent.url}/v2/dockerhub/library/demo/blobs/${digest}`;
  registry.behave = () => ({ latency: 1500 });
  assert.equal(await digestOf(url), digest);
  assert.equal(upstream.requests.length, 0);
  registry.behave = () => ({ status: 404 });
  assert.equal((await fetch(url)).status, 404);
  assert.equal(upstream.requests.length, 0);
  registry.behave = () => ({ silent: true });
  const started = performance.now();
  assert.equal(await digestOf(url), digest);
  assert.ok(performance.now() - started < 8000);
});
