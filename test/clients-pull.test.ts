import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { build } from './support/buildkit.ts';
import { recordCompatibility, versionOf } from './support/compatibility.ts';
import { startDistribution, type Distribution } from './support/distribution.ts';
import { makeImage, pushImage, randomBytes, type TestImage } from './support/image.ts';
import { startRegistry, type ServingProgram } from './support/program.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { RECIPES } from './tools/recipes.ts';
import { debianTool, toolPath } from './tools/tools.ts';

const run = promisify(execFile);

/** The examples of docs/clients.md, against a registry whose upstream is called dockerhub. */
describe('clients pull as docs/clients.md says', () => {
  let upstream: Distribution;
  let registry: ServingProgram;
  let folder: Awaited<ReturnType<typeof temporaryDirectory>>;
  let image: TestImage;

  before(async () => {
    folder = await temporaryDirectory();
    upstream = await startDistribution();
    image = makeImage({ seed: 'clients', architectures: ['amd64'], gzip: true });
    await pushImage(upstream.url, 'library/nginx', '1.27', image);
    const upstreams = { dockerhub: { url: upstream.url } };
    registry = await startRegistry({ upstreams, defaultUpstream: 'dockerhub' });
  });
  after(async () => {
    await registry[Symbol.asyncDispose]();
    await upstream[Symbol.asyncDispose]();
    await folder[Symbol.asyncDispose]();
  });

  const name = () => `${registry.host}/dockerhub/library/nginx:1.27`;

  async function assertLayout(directory: string): Promise<void> {
    for (const { digest, bytes } of image.platforms.flatMap(({ manifest, config, layers }) => [manifest, config, ...layers]))
      assert.ok(bytes.equals(await readFile(join(directory, 'blobs', digest.replace(':', '/')))), digest);
  }

  const record = (name: string, version: string, what: { en: string; zh: string }): void =>
    recordCompatibility(import.meta.filename, { kind: 'client', name, version, works: true, what });

  test('skopeo, by the name of the registry', async () => {
    const layout = join(folder.path, 'skopeo');
    await run(await debianTool('skopeo'), [
      '--insecure-policy',
      'copy',
      '--quiet',
      '--src-tls-verify=false',
      `docker://${name()}`,
      `oci:${layout}:1`,
    ]);
    await assertLayout(layout);
  });

  test('skopeo, by a mirror in registries.conf', async () => {
    const conf = join(folder.path, 'registries.conf');
    await writeFile(
      conf,
      `[[registry]]\nprefix = "docker.io"\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "${registry.host}/dockerhub"\ninsecure = true\n`,
    );
    const layout = join(folder.path, 'skopeo-mirror');
    const args = [
      '--insecure-policy',
      '--registries-conf',
      conf,
      'copy',
      '--quiet',
      'docker://docker.io/library/nginx:1.27',
      `oci:${layout}:1`,
    ];
    await run(await debianTool('skopeo'), args);
    await assertLayout(layout);
  });

  test('buildah', async () => {
    const storage = ['--root', join(folder.path, 'buildah'), '--runroot', join(folder.path, 'buildah-run'), '--storage-driver', 'vfs'];
    await run(await debianTool('buildah'), [...storage, 'pull', '--quiet', '--tls-verify=false', name()]);
    const { stdout } = await run(await debianTool('buildah'), [...storage, 'images', '--digests', '--json']);
    assert.match(stdout, new RegExp(image.root.digest));
  });

  test('crane', async () => {
    const layout = join(folder.path, 'crane');
    await run(await toolPath('crane'), ['pull', '--insecure', '--format=oci', name(), layout]);
    await assertLayout(layout);
  });

  test('regctl, by the name of the registry and by a mirror', async () => {
    const regctl = await toolPath('regctl');
    const pull = async (source: string, hosts: string[][]): Promise<void> => {
      const directory = await mkdtemp(join(folder.path, 'regctl-'));
      const options = { env: { ...process.env, REGCTL_CONFIG: join(directory, 'config.json') } };
      for (const host of hosts) await run(regctl, ['registry', 'set', '--skip-check', ...host], options);
      const layout = join(directory, 'layout');
      await run(regctl, ['image', 'copy', source, `ocidir://${layout}:1.27`], options);
      await assertLayout(layout);
    };
    await pull(name(), [['--tls=disabled', registry.host]]);
    await pull('nginx:1.27', [
      ['--tls=disabled', registry.host],
      [`--mirror=${registry.host}`, 'docker.io'],
    ]);
    record('regctl', await versionOf(regctl, 'version'), {
      en: "pulls by the registry's name, and by a mirror with the usual names",
      zh: '以 registry 的地址拉取,也经镜像站以原来的名字拉取',
    });
  });

  test('oras and helm, of artifacts and charts upstream', async () => {
    const options = {
      cwd: folder.path,
      env: { ...process.env, DOCKER_CONFIG: folder.path, HELM_CONFIG_HOME: folder.path, HELM_CACHE_HOME: folder.path },
    };
    const [oras, helm] = await Promise.all([toolPath('oras'), toolPath('helm')]);
    const file = randomBytes('artifact', 100_000);
    await writeFile(join(folder.path, 'file.bin'), file);
    await run(oras, ['push', '--plain-http', `${upstream.host}/owner/artifact:1`, 'file.bin:application/octet-stream'], options);
    const pulled = join(folder.path, 'oras');
    await run(oras, ['pull', '--plain-http', '--output', pulled, `${registry.host}/dockerhub/owner/artifact:1`], options);
    assert.ok(file.equals(await readFile(join(pulled, 'file.bin'))));

    await run(helm, ['create', 'app'], options);
    await run(helm, ['package', 'app'], options);
    await run(helm, ['push', '--plain-http', 'app-0.1.0.tgz', `oci://${upstream.host}/owner/charts`], options);
    const charts = join(folder.path, 'charts');
    await mkdir(charts);
    await run(
      helm,
      ['pull', '--plain-http', '--version', '0.1.0', '--destination', charts, `oci://${registry.host}/dockerhub/owner/charts/app`],
      options,
    );
    const [before, after] = [join(folder.path, 'app-0.1.0.tgz'), join(charts, 'app-0.1.0.tgz')];
    assert.ok((await readFile(before)).equals(await readFile(after)));
    record('oras', await versionOf(oras, 'version'), { en: 'pulls an artifact of an upstream', zh: '拉取上游的制品' });
    record('Helm', await versionOf(helm, 'version'), { en: 'pulls a chart of an upstream', zh: '拉取上游的 chart' });
  });

  test('Ollama, whose model names cannot contain an upstream, and which reads a blob from the Location of the response', async () => {
    const blob = image.platforms[0]?.layers[0];
    const headers = { 'user-agent': 'ollama/0.14.1 (amd64 linux) Go/go1.24.1' };
    const manifest = await fetch(`${registry.url}/v2/library/nginx/manifests/1.27`, { headers });
    assert.equal(manifest.status, 200);
    const url = `${registry.url}/v2/library/nginx/blobs/${blob?.digest}`;
    const head = await fetch(url, { method: 'HEAD', headers });
    assert.equal(Number(head.headers.get('content-length')), blob?.size);
    const direct = await fetch(url, { headers, redirect: 'manual' });
    await direct.body?.cancel();
    const part = await fetch(new URL(direct.headers.get('location') ?? '', url), {
      headers: { range: `bytes=0-${(blob?.size ?? 0) - 1}` },
    });
    assert.ok(blob?.bytes.equals(Buffer.from(await part.arrayBuffer())));
  });

  test('BuildKit, by a mirror in buildkitd.toml', async () => {
    const context = join(folder.path, 'context');
    await mkdir(context);
    await writeFile(join(context, 'Dockerfile'), 'FROM nginx:1.27\n');
    const directory = join(folder.path, 'buildkit');
    const config = `[registry."docker.io"]\n  mirrors = ["${registry.host}"]\n[registry."${registry.host}"]\n  http = true\n`;
    const layout = join(directory, 'layout');
    await build({ directory, config }, context, ['-layout', layout]);
    for (const { digest, bytes } of image.platforms.flatMap(({ layers }) => layers))
      assert.ok(bytes.equals(await readFile(join(layout, 'blobs', digest.replace(':', '/')))), digest);
    record('BuildKit', RECIPES.buildkit.version.slice(1), {
      en: 'builds on a base image that it pulls by a mirror in buildkitd.toml',
      zh: '经 buildkitd.toml 中的镜像站拉取基础镜像并构建',
    });
  });

  test('dockerd and kaniko, which request images from a mirror without a prefix', async () => {
    const response = await fetch(`${registry.url}/v2/library/nginx/manifests/1.27`);
    assert.equal(response.headers.get('docker-content-digest'), image.root.digest);
  });
});
