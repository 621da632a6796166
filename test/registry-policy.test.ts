import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { makeImage, type TestImage } from './support/image.ts';
import { freeAddresses, PROGRAM, startAgent, startRegistry } from './support/program.ts';
import { startScriptedUpstream, type ScriptedUpstream } from './support/scripted-upstream.ts';
import { temporaryDirectory } from './support/temporary.ts';

const run = promisify(execFile);

/** The response to a client: the status, and the error's code and message. */
async function ask(url: string, method = 'GET'): Promise<{ status: number; code: string; message: string; text: string }> {
  const response = await fetch(url, { method });
  const text = await response.text();
  const { errors = [] } = (response.ok || text === '' ? {} : JSON.parse(text)) as { errors?: { code: string; message: string }[] };
  return { status: response.status, code: errors[0]?.code ?? '', message: errors[0]?.message ?? '', text };
}

function upstreamsOf({ url }: ScriptedUpstream) {
  return { hub: { url, hosts: ['hub.example'], tagTtl: '1s' } };
}

/** Everything of an image that a client reads, by the digests that its tag leads to. */
function pathsOf(image: TestImage): string[] {
  const parts = image.platforms.flatMap(({ manifest, config, layers }) => [
    `manifests/${manifest.digest}`,
    ...[config, ...layers].map(({ digest }) => `blobs/${digest}`),
  ]);
  return [`manifests/${image.root.digest}`, ...parts];
}

test('registry.policy: what a rule refuses is DENIED with the rule: by tag, digest, platform and blob, although it is cached', async () => {
  await using upstream = await startScriptedUpstream();
  await using folder = await temporaryDirectory();
  const image = makeImage({ seed: 'refused', layers: [50_000] });
  const other = makeImage({ seed: 'other', layers: [50_000] });
  upstream.add('apps/web', '1.25', image);
  upstream.add('apps/web', '1.27', other);
  upstream.add('evil/web', '1', other);
  const own = {
    ...(await freeAddresses()),
    storage: { filesystem: { directory: join(folder.path, 'data') } },
    upstreams: upstreamsOf(upstream),
  };
  {
    await using before = await startRegistry(own);
    for (const path of ['manifests/1.25', ...pathsOf(image), 'manifests/1.27', ...pathsOf(other)]) {
      assert.equal((await ask(`${before.url}/v2/hub/apps/web/${path}`)).status, 200, path);
    }
  }
  await using registry = await startRegistry({ ...own, policy: { deny: ['hub.example/apps/web:1.25', 'hub.example/evil/*'] } });
  const base = `${registry.url}/v2/hub`;
  const asked = upstream.requests.length;
  for (const path of ['manifests/1.25', ...pathsOf(image)]) {
    for (const method of ['GET', 'HEAD']) assert.equal((await ask(`${base}/apps/web/${path}`, method)).status, 403, `${method} ${path}`);
  }
  assert.equal(upstream.requests.length, asked, 'upstream was not asked about it');
  const byTag = await ask(`${base}/apps/web/manifests/1.25`);
  assert.equal(byTag.code, 'DENIED');
  assert.equal(byTag.message, 'hub.example/apps/web:1.25 may not be pulled: registry.policy.deny has hub.example/apps/web:1.25');
  assert.match((await ask(`${base}/apps/web/blobs/${image.platforms[0]?.layers[0]?.digest}`)).message, /registry\.policy\.deny has/);
  for (const path of ['manifests/1.27', ...pathsOf(other)]) assert.equal((await ask(`${base}/apps/web/${path}`)).status, 200, path);
  for (const path of ['manifests/1', ...pathsOf(other), 'tags/list', `referrers/${other.root.digest}`]) {
    const answer = await ask(`${base}/evil/web/${path}`);
    if (path === 'tags/list') assert.deepEqual((JSON.parse(answer.text) as { tags: string[] }).tags, []);
    else assert.equal(answer.status, 403, path);
  }
  assert.deepEqual((JSON.parse((await ask(`${base}/apps/web/tags/list`)).text) as { tags: string[] }).tags, ['1.27']);
  const hop = await fetch(`${base}/apps/web/manifests/1.25`, { headers: { 'x-kube-registry-hop': '1' } });
  assert.equal(hop.status, 403, 'a request that says it is from a replica is no way around');
  assert.equal((await ask(`${registry.url}/v2/apps/web/manifests/1.25?ns=hub.example`)).status, 403);
  const metrics = await (await fetch(`${registry.admin}/metrics`)).text();
  assert.match(metrics, /^kube_registry_denied_total\{upstream="hub",rule="deny"\} [1-9]/m);
  assert.doesNotMatch(metrics, /^kube_registry_cache_reads_total\{[^}]*outcome="error"/m, 'a refusal is no failure');
});

test('registry.policy: with tags in allow, only digests that they lead to are served, also after a restart', async () => {
  await using upstream = await startScriptedUpstream();
  await using folder = await temporaryDirectory();
  const image = makeImage({ seed: 'admitted', layers: [50_000] });
  const other = makeImage({ seed: 'another', layers: [50_000] });
  upstream.add('apps/web', '1.27', image);
  upstream.add('apps/web', 'nightly', other);
  const own = {
    ...(await freeAddresses()),
    storage: { filesystem: { directory: join(folder.path, 'data') } },
    upstreams: upstreamsOf(upstream),
    policy: { allow: ['hub.example/apps/web:1.*'] },
  };
  for (const run of ['first', 'after a restart']) {
    await using registry = await startRegistry(own);
    const base = `${registry.url}/v2/hub/apps/web`;
    if (run === 'first') assert.equal((await ask(`${base}/manifests/1.27`)).status, 200);
    for (const path of pathsOf(image)) assert.equal((await ask(`${base}/${path}`)).status, 200, `${run}: ${path}`);
    for (const path of ['manifests/nightly', ...pathsOf(other)]) {
      const answer = await ask(`${base}/${path}`);
      assert.equal(answer.status, 403, `${run}: ${path}`);
      assert.match(answer.message, /registry\.policy\.allow does not have it$/);
    }
  }
});

test('registry.policy.minimumAge: an image is refused until this registry has known it that long, then its platforms are served at once', async () => {
  await using upstream = await startScriptedUpstream();
  await using folder = await temporaryDirectory();
  const image = makeImage({ seed: 'young', layers: [50_000] });
  const old = makeImage({ seed: 'old', layers: [50_000] });
  upstream.add('apps/web', '1', image);
  upstream.add('apps/web', 'old', old);
  const addresses = await freeAddresses();
  const own = { ...addresses, storage: { filesystem: { directory: join(folder.path, 'data') } }, upstreams: upstreamsOf(upstream) };
  {
    await using before = await startRegistry(own);
    for (const path of ['manifests/old', ...pathsOf(old)]) assert.equal((await ask(`${before.url}/v2/hub/apps/web/${path}`)).status, 200);
  }
  {
    await using registry = await startRegistry({ ...own, policy: { minimumAge: '1h' } });
    const base = `${registry.url}/v2/hub/apps/web`;
    for (const path of ['manifests/1', `manifests/${image.root.digest}`]) {
      const { status, code, message } = await ask(`${base}/${path}`);
      assert.deepEqual([status, code], [403, 'DENIED'], path);
      assert.match(message, /registry\.policy\.minimumAge: this registry first saw it at 20\S+Z, and serves it from 20\S+Z on$/);
    }
    assert.ok(
      !upstream.requests.some(({ method, path }) => method === 'GET' && path.endsWith('/apps/web/manifests/1')),
      'no pull is counted',
    );
    assert.equal((await ask(`${base}/manifests/unknown`)).status, 404);
    const metrics = await (await fetch(`${registry.admin}/metrics`)).text();
    assert.match(metrics, /^kube_registry_denied_total\{upstream="hub",rule="age"\} [1-9]/m);
  }
  await using registry = await startRegistry({ ...own, policy: { minimumAge: '1ms' } });
  const base = `${registry.url}/v2/hub/apps/web`;
  for (const path of ['manifests/1', ...pathsOf(image), 'manifests/old', ...pathsOf(old)]) {
    assert.equal((await ask(`${base}/${path}`)).status, 200, path);
  }
});

test('registry.policy: an agent does not ask upstream for images that the registry refuses, and refuses them itself while the registry is down', async () => {
  await using upstream = await startScriptedUpstream();
  const image = makeImage({ seed: 'agent', layers: [50_000] });
  upstream.add('apps/web', '1', image);
  upstream.add('apps/web', '2', image);
  const upstreams = upstreamsOf(upstream);
  const policy = { deny: ['hub.example/apps/web:1'] };
  const addresses = await freeAddresses();
  await using agent = await startAgent({ registry: `http://${addresses.listen}` }, { registry: { upstreams, policy } });
  {
    await using registry = await startRegistry({ ...addresses, upstreams, policy });
    const { status, code, message } = await ask(`${agent.url}/v2/hub/apps/web/manifests/1`);
    assert.deepEqual([status, code], [403, 'DENIED'], registry.url);
    assert.match(message, /registry\.policy\.deny has hub\.example\/apps\/web:1$/);
    assert.equal((await ask(`${agent.url}/v2/hub/apps/web/manifests/2`)).status, 200);
  }
  assert.equal((await ask(`${agent.url}/v2/hub/apps/web/manifests/2`)).status, 200, 'straight from upstream');
  assert.equal((await ask(`${agent.url}/v2/hub/apps/web/manifests/1`)).status, 403);
  assert.ok(!upstream.requests.some(({ path }) => path.endsWith('/apps/web/manifests/1')), 'no request for it reached upstream');
});

test('cache check says whether an image would be served, and which rule decides', async () => {
  await using upstream = await startScriptedUpstream();
  await using folder = await temporaryDirectory();
  const image = makeImage({ seed: 'checked', layers: [50_000] });
  upstream.add('apps/web', '1', image);
  upstream.add('apps/web', '2', image);
  const own = {
    ...(await freeAddresses()),
    storage: { filesystem: { directory: join(folder.path, 'data') } },
    upstreams: upstreamsOf(upstream),
  };
  const config = join(folder.path, 'config.yaml');
  const [node, ...main] = PROGRAM;
  const check = async (name: string) => {
    const ran = run(node, [...main, 'cache', 'check', name, '--json', '--config', config]);
    const { stdout, code } = await ran.then(
      (done) => ({ ...done, code: 0 }),
      (error: { stdout: string; code: number }) => error,
    );
    return { code, answer: (code > 1 ? {} : JSON.parse(stdout)) as Record<string, unknown> & { upstream: { answer: string } } };
  };
  {
    await using registry = await startRegistry(own);
    for (const path of ['manifests/1', ...pathsOf(image)])
      assert.equal((await ask(`${registry.url}/v2/hub/apps/web/${path}`)).status, 200, path);
  }
  await writeFile(config, JSON.stringify({ registry: { ...own, policy: { deny: ['hub.example/apps/web:2'] } } }));
  const served = await check('hub.example/apps/web:1');
  assert.equal(served.code, 0);
  assert.deepEqual(
    [served.answer['served'], served.answer['stored'], served.answer['digest'], served.answer.upstream.answer],
    [true, 'complete', image.root.digest, 'found'],
  );
  const refused = await check('hub.example/apps/web:2');
  assert.deepEqual([refused.code, refused.answer['served']], [1, false]);
  assert.equal(refused.answer['rule'], 'registry.policy.deny has hub.example/apps/web:2');
  const absent = await check('hub.example/apps/web:3');
  assert.deepEqual([absent.code, absent.answer.upstream.answer, absent.answer['stored']], [1, 'absent', 'no']);
  assert.equal((await check('elsewhere.example/apps/web:1')).code, 2, 'no image of this registry');
});
