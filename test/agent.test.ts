import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdir, readFile, readdir, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { load } from '../bench/load.ts';
import { recordCompatibility, versionOf } from './support/compatibility.ts';
import { startContainerd } from './support/containerd.ts';
import { makeImage, randomBytes, sha256 } from './support/image.ts';
import { halt } from './support/process.ts';
import { PROGRAM, startAgent, startRegistry, type ServingProgram } from './support/program.ts';
import { startScriptedUpstream, type ScriptedUpstream } from './support/scripted-upstream.ts';
import { freePort, temporaryDirectory } from './support/temporary.ts';
import { startTokenServer } from './support/token-server.ts';
import { debianTool } from './tools/tools.ts';
import { until } from './support/until.ts';

const [NODE, ...MAIN] = PROGRAM;

const MiB = 1024 * 1024;

async function digestOf(url: string, headers: Record<string, string> = {}): Promise<string> {
  const response = await fetch(url, { headers });
  assert.ok(response.ok, `${url}: ${response.status}`);
  return sha256(Buffer.from(await response.arrayBuffer()));
}

async function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

/** A registry, an agent of it, and the times of the requests to the agent. */
async function startBoth(upstream: ScriptedUpstream, directory: string, agentOptions: Record<string, unknown> = {}) {
  await using stack = new AsyncDisposableStack();
  const registry = stack.use(await startRegistry({ storage: { filesystem: { directory } }, ...upstreams(upstream) }));
  const agent = stack.use(await startAgent({ registry: registry.url, ...agentOptions }, { registry: upstreams(upstream) }));
  const owned = stack.move();
  return { registry, agent, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

async function seconds(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await work();
  return (performance.now() - started) / 1000;
}

const ACCEPT = 'application/vnd.oci.image.manifest.v1+json';

/** As containerd does: HEAD of the tag, the manifest, and then its blobs all at once. Everything
 *  must have its digest. */
async function pull(agent: ServingProgram, repository: string, tag: string): Promise<void> {
  const base = `${agent.url}/v2/dockerhub/${repository}`;
  const head = await fetch(`${base}/manifests/${tag}`, { method: 'HEAD', headers: { accept: ACCEPT } });
  assert.equal(head.status, 200);
  const digest = head.headers.get('docker-content-digest') ?? '';
  const bytes = Buffer.from(await (await fetch(`${base}/manifests/${digest}`, { headers: { accept: ACCEPT } })).arrayBuffer());
  assert.equal(sha256(bytes), digest);
  const { config, layers } = JSON.parse(bytes.toString()) as { config: { digest: string }; layers: { digest: string }[] };
  await Promise.all([config, ...layers].map(async (blob) => assert.equal(await digestOf(`${base}/blobs/${blob.digest}`), blob.digest)));
}

function upstreams(upstream: ScriptedUpstream) {
  return { upstreams: { dockerhub: { url: upstream.url } } };
}

for (const release of ['debian', '2.4'] as const) {
  test(`promise A3: containerd ${release} pulls through the agent without any setting, also while the registry is down`, async () => {
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
    recordCompatibility(import.meta.filename, {
      kind: 'runtime',
      name: 'containerd',
      version: containerd.version,
      works: true,
      what: {
        en: 'pulls rewritten images by CRI through the agent on 127.0.0.1, without any setting, also when the registry is down',
        zh: '无需任何设置,通过 CRI 经 127.0.0.1 上的 agent 拉取改写后的镜像,registry 不可用时也能拉取',
      },
    });
  });

  test(`promise A6: in mirror mode containerd ${release} pulls unmodified names through the agent, and its files go with it`, async () => {
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
      await until(() => readFile(file, 'utf8').then(Boolean, () => false), 'hosts.toml is written');
      assert.match(await readFile(file, 'utf8'), new RegExp(`host."http://${agent.host.replaceAll('.', '\\.')}"`));
      await using containerd = await startContainerd({ release, configPath: certs });
      await containerd.cri('pull', 'docker.io/library/demo:1');
      assert.ok(
        agent.log().some(({ path }) => String(path).includes('quay.io')),
        'a foreign file is reported',
      );
      // An agent that has no time to remove its files: they also name the upstream itself.
      await agent.stop('SIGKILL');
      await containerd.cri('remove', 'docker.io/library/demo:1');
      const asked = upstream.requests.length;
      await containerd.cri('pull', 'docker.io/library/demo:1');
      assert.ok(upstream.requests.length > asked, 'straight from upstream');
      recordCompatibility(import.meta.filename, {
        kind: 'runtime',
        name: 'containerd',
        version: containerd.version,
        works: true,
        what: {
          en: 'mirror mode, with `config_path` naming one folder: reads the hosts.toml of the agent',
          zh: '镜像站模式,`config_path` 只写一个目录:读取 agent 写的 hosts.toml',
        },
      });
      await using next = await startAgent({ registry: registry.url, mirror: { directory: certs } }, { registry: upstreams(upstream) });
      await until(() => next.log().some(({ event }) => event === 'node-file-written'), 'the next agent takes over');
      await next.stop();
    }
    assert.deepEqual(await readdir(certs), ['quay.io'], 'the files of the agent have been removed');
    assert.equal(await readFile(join(certs, 'quay.io', 'hosts.toml'), 'utf8'), 'server = "https://quay.io"\n');
  });
}

for (const [release, works] of [
  ['debian', true],
  ['2.4', false],
] as const) {
  test(`containerd ${release} ${works ? 'reads' : 'does not read'} hosts.toml where config_path names two folders`, async () => {
    await using upstream = await startScriptedUpstream();
    upstream.add('library/demo', '1', makeImage({ architectures: ['amd64'] }));
    await using temporary = await temporaryDirectory();
    const folder = join(temporary.path, 'registry.invalid');
    await mkdir(folder);
    await writeFile(join(folder, 'hosts.toml'), `server = "${upstream.url}"\n[host."${upstream.url}"]\n`);
    await using containerd = await startContainerd({ release, configPath: `${temporary.path}:/etc/docker/certs.d` });
    const pull = containerd.cri('pull', 'registry.invalid/library/demo:1');
    if (works) await pull;
    else await assert.rejects(pull, /registry\.invalid/);
    recordCompatibility(import.meta.filename, {
      kind: 'runtime',
      name: 'containerd',
      version: containerd.version,
      works,
      what: {
        en: `mirror mode, with \`config_path\` naming two folders, the default of 2.2 to 2.4: ${works ? 'reads both' : 'takes them for one and reads neither; the agent reports it'}`,
        zh: `镜像站模式,\`config_path\` 写两个目录(2.2 到 2.4 的默认值):${works ? '两个都读取' : '当成一个目录名,两个都不读取;agent 会报告'}`,
      },
    });
  });
}

test('promise A3: a blob that the registry cuts in the middle continues from upstream, ranges and unknown lengths too', async () => {
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
  broken.behave = ({ path }) => (path.includes('/blobs/') ? { cutAfter: 3 * MiB, chunked: true } : {});
  assert.equal(await digestOf(url), digest);
  // That registry answers, so it is used again.
  broken.behave = () => ({});
  const asked = upstream.requests.length;
  assert.equal(await digestOf(url), digest);
  assert.equal(upstream.requests.length, asked);
});

test("promise A3: a slow registry is given time, a failing one is passed over, and the registry's 404 is an answer", async () => {
  await using upstream = await startScriptedUpstream();
  await using registry = await startScriptedUpstream();
  const digest = upstream.addBlob(randomBytes('slow', MiB));
  registry.addBlob(randomBytes('slow', MiB));
  await using agent = await startAgent({ registry: registry.url }, { registry: upstreams(upstream) });
  const url = `${agent.url}/v2/dockerhub/library/demo/blobs/${digest}`;
  registry.behave = () => ({ latency: 1000 });
  const tookFirst = await seconds(async () => assert.equal(await digestOf(url), digest));
  assert.ok(upstream.requests.length === 0 || tookFirst > 2.5, 'upstream is not asked within 3 s');
  registry.behave = () => ({ status: 404 });
  let before = upstream.requests.length;
  assert.equal((await fetch(url)).status, 404);
  assert.equal(upstream.requests.length, before);
  for (const status of [500, 502, 503]) {
    registry.behave = ({ path }) => (path === '/v2/' ? {} : { status });
    assert.equal(await digestOf(url), digest, `${status}`);
  }
  assert.ok(upstream.requests.length >= before + 3);
  registry.behave = () => ({});
  before = upstream.requests.length;
  const tookLast = await seconds(async () => assert.equal(await digestOf(url), digest));
  assert.ok(upstream.requests.length === before || tookLast > 2.5, 'a registry whose upstream fails is not taken for dead');
});

test("promise A5: the agent follows the registry's redirects, and answers upstream's 401 with an anonymous token of its own", async () => {
  await using upstream = await startScriptedUpstream();
  await using registry = await startScriptedUpstream();
  await using storage = await startScriptedUpstream();
  await using tokens = await startTokenServer({ allow: () => true });
  const bytes = randomBytes('redirected', MiB);
  const digest = upstream.addBlob(bytes);
  storage.addBlob(bytes);
  await using agent = await startAgent({ registry: registry.url }, { registry: upstreams(upstream) });
  const url = `${agent.url}/v2/dockerhub/library/demo/blobs/${digest}`;
  registry.behave = () => ({ status: 307, headers: { location: `${storage.url}/v2/x/blobs/${digest}` } });
  const redirected = await fetch(url, { redirect: 'manual' });
  assert.equal(redirected.status, 200, 'the client sees no redirect');
  assert.equal(sha256(Buffer.from(await redirected.arrayBuffer())), digest);

  registry.behave = () => ({ status: 503 });
  const challenge = `Bearer realm="${tokens.realm}",service="${tokens.service}",scope="repository:library/demo:pull"`;
  upstream.behave = ({ authorization }) =>
    authorization?.startsWith('Bearer ') === true ? {} : { status: 401, headers: { 'www-authenticate': challenge } };
  assert.equal(await digestOf(url), digest);
  assert.deepEqual(
    tokens.requests.map(({ account }) => account),
    [undefined],
  );
});

test("the registry's 401, 403 and unknown upstream are not final: a public image comes from upstream; a refusal of both is the registry's", async () => {
  await using upstream = await startScriptedUpstream();
  await using registry = await startScriptedUpstream();
  const digest = upstream.addBlob(randomBytes('public', MiB));
  const own = (code: string) => Buffer.from(JSON.stringify({ errors: [{ code, message: `the registry says ${code}` }] }));
  const json = { 'content-type': 'application/json' };
  await using agent = await startAgent({ registry: registry.url }, { registry: upstreams(upstream) });
  const url = `${agent.url}/v2/dockerhub/library/demo/blobs/${digest}`;
  const rows: [number, string, Record<string, string>][] = [
    [401, 'UNAUTHORIZED', {}],
    [403, 'DENIED', {}],
    [404, 'NAME_UNKNOWN', { 'x-kube-registry-error': 'NAME_UNKNOWN' }],
  ];
  for (const [status, code, headers] of rows) {
    registry.behave = () => ({ status, body: own(code), headers: { ...json, ...headers } });
    assert.equal(await digestOf(url), digest, code);
    assert.equal((await fetch(url, { method: 'HEAD' })).status, 200, code);
  }
  registry.behave = () => ({ status: 404, headers: { 'content-type': 'text/html' }, body: Buffer.from('<h1>not found</h1>') });
  assert.equal(await digestOf(url), digest, 'a 404 of an ingress');
  upstream.behave = () => ({ status: 403 });
  registry.behave = () => ({ status: 401, body: own('UNAUTHORIZED'), headers: json });
  const refused = await fetch(url);
  assert.equal(refused.status, 401);
  assert.match(await refused.text(), /the registry says UNAUTHORIZED/);
});

test("the registry's 429 is passed on with its Retry-After, and a short one is waited for; upstream is not asked", async () => {
  await using upstream = await startScriptedUpstream();
  await using registry = await startScriptedUpstream();
  const digest = registry.addBlob(randomBytes('limited', MiB));
  await using agent = await startAgent({ registry: registry.url }, { registry: upstreams(upstream) });
  const url = `${agent.url}/v2/dockerhub/library/demo/blobs/${digest}`;
  registry.behave = () => ({ status: 429, headers: { 'retry-after': '30' } });
  const refused = await fetch(url);
  assert.equal(refused.status, 429);
  assert.equal(refused.headers.get('retry-after'), '30');
  let asked = 0;
  registry.behave = ({ path }) => (path !== '/v2/' && asked++ === 0 ? { status: 429, headers: { 'retry-after': '4' } } : {});
  assert.equal(await digestOf(url), digest);
  assert.equal(asked, 2);
  assert.equal(upstream.requests.length, 0);
});

test('promise A3: a registry that hangs costs a pull at most 4 s, and is used again within 10 s of coming back', async (t) => {
  await using upstream = await startScriptedUpstream();
  const image = makeImage({ architectures: ['amd64'], layers: [MiB, MiB, 8 * MiB] });
  for (const tag of ['cold', 'warm', 'after']) upstream.add('library/demo', tag, image);
  await using temporary = await temporaryDirectory();
  await using both = await startBoth(upstream, temporary.path);
  const { registry, agent } = both;
  const usual = await seconds(() => pull(agent, 'library/demo', 'cold'));
  await halt(registry.pid);
  const hung = await seconds(() => pull(agent, 'library/demo', 'warm'));
  t.diagnostic(`a pull takes ${usual.toFixed(2)} s, and ${hung.toFixed(2)} s when the registry hangs`);
  assert.ok(hung < 2 * usual + 6, `${hung} s`); // more than 4 on a machine that stalls
  const refused = await seconds(async () => {
    const { status } = await fetch(`${agent.url}/v2/dockerhub/library/demo/manifests/none`);
    assert.equal(status, 404, 'what upstream does not have either');
  });
  assert.ok(refused < 15, `${refused} s`);
  process.kill(registry.pid, 'SIGCONT');
  const back = await seconds(() => until(() => agent.log().some(({ msg }) => msg === 'the registry answers again'), 'it is used again'));
  t.diagnostic(`used again after ${back.toFixed(2)} s`);
  assert.ok(back < 20, `${back} s`);
  // The registry may still answer requests of the time when it hung, which were for other tags.
  const asked = upstream.requests.length;
  await pull(agent, 'library/demo', 'cold');
  const direct = upstream.requests.slice(asked).filter(({ path }) => path.endsWith('/manifests/cold'));
  assert.deepEqual(direct, [], 'through the registry again');
});

test('promise A3: ten pulls whose registry hangs and ten whose registry is killed all complete with the right bytes', async (t) => {
  await using upstream = await startScriptedUpstream();
  const blobs = Array.from({ length: 20 }, (_, index) => upstream.addBlob(randomBytes(`pull ${index}`, 4 * MiB)));
  await using temporary = await temporaryDirectory();
  await using both = await startBoth(upstream, temporary.path);
  const { registry, agent } = both;
  const open = (digests: string[]) =>
    Promise.all(
      digests.map(async (digest) => ({ digest, response: await fetch(`${agent.url}/v2/dockerhub/library/demo/blobs/${digest}`) })),
    );
  for (const [signal, digests] of [
    ['SIGSTOP', blobs.slice(0, 10)],
    ['SIGKILL', blobs.slice(10)],
  ] as const) {
    upstream.behave = ({ path }) => (path.includes('/blobs/') ? { rate: MiB / 4 } : {});
    const running = await open(digests);
    upstream.behave = () => ({});
    process.kill(registry.pid, signal);
    const took = await seconds(() =>
      Promise.all(running.map(async ({ digest, response }) => assert.equal(sha256(Buffer.from(await response.arrayBuffer())), digest))),
    );
    t.diagnostic(`${signal}: ten running pulls were whole ${took.toFixed(2)} s later`);
    assert.ok(took < 30, `${took} s`);
    if (signal === 'SIGSTOP') {
      process.kill(registry.pid, 'SIGCONT');
      await until(() => agent.log().some(({ msg }) => msg === 'the registry answers again'), 'it is used again');
    }
  }
  const resumed = agent.log().filter(({ msg }) => msg === 'a blob was cut; resuming it from the other source').length;
  assert.ok(resumed >= 20 && resumed <= 40, `${resumed} times: each of the twenty once, or again on a machine that stalls`);
});

// Each has servers of its own, and only waits.
describe('an upstream that cannot be reached', { concurrency: 2 }, () => {
  test('promise A3: a slow registry is waited for while upstream cannot be reached', async () => {
    await using registry = await startScriptedUpstream();
    const digest = registry.addBlob(randomBytes('slow', MiB));
    registry.behave = ({ path }) => (path === '/v2/' ? {} : { latency: 10_000 });
    const dead = { upstreams: { dockerhub: { url: `http://127.0.0.1:${await freePort()}` } } };
    await using agent = await startAgent({ registry: registry.url }, { registry: dead });
    assert.equal(await digestOf(`${agent.url}/v2/dockerhub/library/demo/blobs/${digest}`), digest);
  });

  test('promise A3: with registry and upstream down, the error comes within 10 s and names both', async (t) => {
    const [registry, upstream] = [await freePort(), await freePort()];
    const dead = { upstreams: { dockerhub: { url: `http://127.0.0.1:${upstream}` } } };
    await using agent = await startAgent({ registry: `http://127.0.0.1:${registry}` }, { registry: dead });
    for (const path of ['manifests/1', `blobs/sha256:${'0'.repeat(64)}`, 'tags/list']) {
      let response: Response | undefined;
      const took = await seconds(async () => (response = await fetch(`${agent.url}/v2/dockerhub/library/demo/${path}`)));
      t.diagnostic(`${path.slice(0, 12)}: ${took.toFixed(2)} s`);
      assert.ok(took < 25, `${took} s: before containerd gives up`);
      assert.equal(response?.status, 503);
      const { errors } = (await response.json()) as { errors: { code: string; message: string }[] };
      assert.equal(errors[0]?.code, 'UNAVAILABLE');
      for (const port of [registry, upstream]) assert.match(errors[0].message, new RegExp(`127\\.0\\.0\\.1:${port}`));
    }
  });
});

test('promise A1: during an upgrade two agents share the port, and stopping the older one under load fails no pull', async () => {
  await using upstream = await startScriptedUpstream();
  const digest = upstream.addBlob(randomBytes('handover', 2 * MiB));
  await using temporary = await temporaryDirectory();
  const certs = join(temporary.path, 'certs.d');
  const shared = {
    listen: `127.0.0.1:${await freePort()}`,
    admin: `127.0.0.1:${await freePort()}`,
    mirror: { directory: certs },
    readyFile: join(temporary.path, 'ready'),
  };
  await using both = await startBoth(upstream, join(temporary.path, 'data'), shared);
  const { registry, agent: older } = both;
  const file = join(certs, 'docker.io', 'hosts.toml');
  await until(() => isThere(file), 'hosts.toml is written');

  // The older agent answers for both, so only the file shows that the newer one has started. A
  // killed agent leaves its file behind.
  const readyFile = join(temporary.path, 'newer-ready');
  await writeFile(readyFile, 'stale');
  await using newer = await startAgent({ registry: registry.url, ...shared, readyFile }, { registry: upstreams(upstream) });
  // Go's client, as containerd's: kept connections, and again on a new one when it finds a kept one
  // closed.
  const url = `http://${shared.listen}/v2/dockerhub/library/demo/blobs/${digest}`;
  const running = load({ clients: Array.from({ length: 4 }, () => ({ urls: [url] })), seconds: 5, verify: true });
  await until(async () => (await readFile(readyFile, 'utf8').catch(() => 'absent')) === '', 'the newer one has started');
  assert.equal(await older.stop(), 0);
  assert.equal(await isThere(shared.readyFile), false);
  const { requests } = await running;
  assert.ok(requests > 4, `${requests} pulls`);
  assert.ok(await isThere(file), 'the older one left it alone');
  assert.equal(await newer.stop(), 0);
  for (const path of [file, readyFile]) assert.equal(await isThere(path), false);
});

test('promise A1: on SIGTERM the agent releases its ports at once and finishes its running requests', async () => {
  await using upstream = await startScriptedUpstream();
  const blob = randomBytes('last words', 32 * MiB);
  const digest = upstream.addBlob(blob);
  await using temporary = await temporaryDirectory();
  await using both = await startBoth(upstream, join(temporary.path, 'data'));
  const { agent } = both;
  const response = await fetch(`${agent.url}/v2/dockerhub/library/demo/blobs/${digest}`);
  const stopped = agent.stop();
  for (const url of [`${agent.admin}/readyz`, `${agent.url}/v2/`])
    await until(
      () =>
        fetch(url).then(
          () => false,
          () => true,
        ),
      `${url} is released`,
    );
  assert.equal(sha256(Buffer.from(await response.arrayBuffer())), sha256(blob));
  assert.equal(await stopped, 0);
});

test('no other process can listen on the ports of an agent, not even one of the same user', async () => {
  await using agent = await startAgent({ registry: 'http://127.0.0.1:1', extraPorts: [await freePort()] });
  for (const url of [agent.url, agent.admin]) {
    const { port } = new URL(url);
    const stranger = createServer().listen({ host: '127.0.0.1', port: Number(port), reusePort: true });
    const [error] = (await once(stranger, 'error')) as [NodeJS.ErrnoException];
    assert.equal(error.code, 'EADDRINUSE');
  }
});

test('an agent that does not hand over its ports is replaced as soon as it stops; the next one reports that it is ready before that', async () => {
  await using temporary = await temporaryDirectory();
  const shared = { listen: `127.0.0.1:${await freePort()}`, admin: `127.0.0.1:${await freePort()}` };
  const secretFile = async (name: string) => {
    const path = join(temporary.path, name);
    await writeFile(path, name.repeat(10));
    return path;
  };
  await using older = await startAgent({ registry: 'http://127.0.0.1:1', ...shared, handoverSecretFile: await secretFile('one') });
  const readyFile = join(temporary.path, 'ready');
  const next = { ...shared, readyFile, handoverSecretFile: await secretFile('other') };
  await using newer = await startAgent({ registry: 'http://127.0.0.1:1', ...next });
  await until(() => isThere(readyFile), 'the newer one is ready');
  assert.ok(older.log().some(({ event }) => event === 'handover-refused'));
  assert.equal(await older.stop(), 0);
  await until(() => newer.log().some(({ event }) => event === 'agent-ready'), 'the newer one has the ports');
  assert.equal((await fetch(`http://${shared.listen}/v2/`)).status, 200);
});

test('promise A7: CRI-O trusts the agent through the drop-in that it writes', async () => {
  await using upstream = await startScriptedUpstream();
  upstream.add('library/demo', '1', makeImage({ architectures: ['amd64'] }));
  await using temporary = await temporaryDirectory();
  // skopeo and CRI-O use the same library to read this configuration.
  const containers = join(temporary.path, '.config', 'containers');
  const directory = join(containers, 'registries.conf.d');
  await mkdir(directory, { recursive: true });
  await writeFile(join(containers, 'registries.conf'), '');
  await using both = await startBoth(upstream, join(temporary.path, 'data'), { crio: { directory } });
  await until(async () => (await readdir(directory)).length > 0, 'the drop-in is written');
  const env = { ...process.env, HOME: temporary.path };
  const inspect = [await debianTool('skopeo'), ['inspect', '--raw', `docker://${both.agent.host}/dockerhub/library/demo:1`]] as const;
  const { stdout } = await promisify(execFile)(...inspect, { env });
  assert.match(stdout, /schemaVersion/);
  await both.agent.stop();
  await using again = await startAgent({ listen: both.agent.host, registry: both.registry.url }, { registry: upstreams(upstream) });
  assert.ok(again.url);
  await promisify(execFile)(NODE, [...MAIN, 'agent', '--remove', '--set', `agent.crio.directory=${directory}`]);
  assert.deepEqual(await readdir(directory), []);
  await assert.rejects(promisify(execFile)(...inspect, { env }), /HTTP response to HTTPS client/);
  recordCompatibility(import.meta.filename, {
    kind: 'runtime',
    name: "CRI-O's image library (skopeo)",
    version: await versionOf(await debianTool('skopeo'), '--version'),
    works: true,
    what: {
      en: 'trusts plain HTTP on 127.0.0.1 by the drop-in that the agent writes, and not without it',
      zh: '有 agent 写的配置文件时信任 127.0.0.1 上的明文 HTTP,没有则不信任',
    },
  });
});

test('a setup that cannot work is reported at start, with what to do about it', async () => {
  await using temporary = await temporaryDirectory();
  const certs = join(temporary.path, 'certs.d');
  const images = 'version = 3\n[plugins."io.containerd.cri.v1.images".registry]\n';
  const former = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\n';
  const rows: [string, string, RegExp][] = [
    ['containerd 2.2 to 2.4 by default', '', /reads no hosts\.toml .*config_path is unset.*set config_path = ".*certs\.d"/],
    ['containerd 1.6 to 2.1 by default', `${former}  config_path = ""\n`, /config_path is unset/],
    ['another folder', `${former}  config_path = '/etc/elsewhere'\n`, /in \/etc\/elsewhere, not in .*certs\.d/],
    ['two folders', `${images}  config_path = "${certs}:/etc/docker/certs.d"\n`, /take config_path = .* for one folder/],
    [
      'the transfer plugin alone',
      `[plugins."io.containerd.transfer.v1.local"]\n  config_path = "${certs}"\n`,
      /transfer plugin does not count/,
    ],
    ['no TOML', 'config_path = \n', /config\.toml is not TOML/],
    ['a comment', `# config_path = "${certs}"\n`, /config_path is unset/],
    ['another table', `[plugins."io.containerd.nri.v1.nri"]\n  config_path = "${certs}"\n`, /config_path is unset/],
  ];
  for (const [what, toml, warning] of rows) {
    await writeFile(join(temporary.path, 'config.toml'), toml);
    await using agent = await startAgent({ registry: 'http://127.0.0.1:1', mirror: { directory: certs } });
    await until(() => agent.log().some(({ level, msg }) => level === 'warn' && warning.test(msg)), `${what}: ${warning}`);
    const metrics = await (await fetch(`${agent.admin}/metrics`)).text();
    assert.match(metrics, /kube_registry_agent_node_problems\{problem="config-[a-z-]+"\} 1/, what);
  }
  await mkdir(join(temporary.path, 'conf.d'));
  await writeFile(join(temporary.path, 'conf.d', 'mirror.toml'), `${images}  config_path = "${certs}/"\n`);
  const fine: [string, string][] = [
    ['one folder', `${images}  config_path = "${certs}"\n`],
    ['an imported file', `imports = ["conf.d/*.toml"]\n${images}  config_path = ""\n`],
    [
      'two folders, and the older client',
      `${images}  config_path = "/etc/x:${certs}/"\n[plugins."io.containerd.cri.v1.images"]\n  use_local_image_pull = true\n`,
    ],
  ];
  for (const [what, toml] of fine) {
    await writeFile(join(temporary.path, 'config.toml'), toml);
    const { stdout } = await promisify(execFile)(NODE, [...MAIN, 'agent', 'report', '--set', `agent.mirror.directory=${certs}`]);
    assert.equal(stdout, 'No problem found on this node.\n', what);
  }

  await using blocked = await startAgent({ registry: 'http://127.0.0.1:1', crio: { directory: join(temporary.path, 'config.toml', 'x') } });
  await until(() => blocked.log().some(({ msg }) => /config\.toml\/x cannot be written .*mount/.test(msg)), 'the log names the directory');

  const taken = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => taken.once('listening', resolve));
  const { port } = taken.address() as { port: number };
  await assert.rejects(
    startAgent({ registry: 'http://127.0.0.1:1', listen: `127.0.0.1:${port}` }),
    new RegExp(`127\\.0\\.0\\.1:${port}: the port is in use by another process; stop that one`),
  );
  taken.close();
  await assert.rejects(startAgent({ registry: 'http://$(KUBE_REGISTRY_SERVICE_HOST):5000' }), /Service was not there/);
});

for (const { name, limit, share } of [
  { name: 'an idle agent keeps under 40 MiB of anonymous memory', limit: 40, share: false },
  { name: 'an idle agent that shares blobs keeps under 48 MiB of anonymous memory', limit: 48, share: true },
]) {
  test(`promise A4: ${name} and 96 MiB resident`, async (t) => {
    await using temporary = await temporaryDirectory();
    const listen = `127.0.0.1:${await freePort()}`;
    const sharing = { enabled: share, listen, address: '127.0.0.1', directory: join(temporary.path, 'shared') };
    const env = { NODE_COMPILE_CACHE: join(temporary.path, 'compiled') }; // as on a new node
    await using agent = await startAgent({ registry: 'http://127.0.0.1:1', share: sharing }, {}, { env });
    await delay(3000);
    const { anonymous, resident } = await agent.memory();
    t.diagnostic(`${(anonymous / MiB).toFixed(1)} MiB anonymous, ${(resident / MiB).toFixed(1)} MiB resident`);
    assert.ok(anonymous < limit * MiB, `${anonymous}`);
    assert.ok(resident < 96 * MiB, `${resident}`);
  });
}
