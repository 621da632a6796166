import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { startContainerd } from './support/containerd.ts';
import { startDistribution, type Distribution } from './support/distribution.ts';
import { makeImage, pushImage, type Content, type TestImage } from './support/image.ts';
import { freeAddresses, PROGRAM, startRegistry, type ServingProgram } from './support/program.ts';
import { signatureOf } from './support/signature.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { debianTool, toolPath } from './tools/tools.ts';

const run = promisify(execFile);
const [NODE, ...MAIN] = PROGRAM;
const NAMES = ['hub.example/apps/one:1', 'hub.example/apps/two:1', 'hub.example/apps/three:1'];

interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

let upstream: Distribution;
let connected: ServingProgram;
let folder: Awaited<ReturnType<typeof temporaryDirectory>>;
const images = new Map<string, TestImage>();
let own: Record<string, unknown>;

async function configure(name: string, url: string): Promise<Record<string, unknown>> {
  const registry = {
    ...(await freeAddresses()),
    storage: { filesystem: { directory: join(folder.path, name) } },
    upstreams: { hub: { url, hosts: ['hub.example'] } },
  };
  await writeFile(join(folder.path, `${name}.yaml`), JSON.stringify({ registry }));
  return registry;
}

/** `kube-registry cache ARGS` with the configuration of that name. */
async function cache(configuration: string, ...args: string[]): Promise<Ended> {
  const child = spawn(NODE, [...MAIN, 'cache', ...args, '--config', join(folder.path, `${configuration}.yaml`)]);
  const ended = { code: -1, stdout: '', stderr: '' };
  child.stdout.setEncoding('utf8').on('data', (text: string) => (ended.stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (ended.stderr += text));
  [ended.code] = (await once(child, 'close')) as [number];
  return ended;
}

function contentsOf({ root, platforms }: TestImage): Content[] {
  return [root, ...platforms.flatMap(({ manifest, config, layers }) => [manifest, config, ...layers])];
}

/** Pulls everything of an image by HTTP and compares it byte for byte. */
async function assertServed(registry: ServingProgram, name: string, image: TestImage): Promise<void> {
  const byTag = await fetch(`${registry.url}/v2/hub/${name}/manifests/1`);
  assert.equal(byTag.status, 200, `${name}: ${await byTag.clone().text()}`);
  assert.equal(byTag.headers.get('docker-content-digest'), image.root.digest);
  for (const { digest, bytes, mediaType } of contentsOf(image)) {
    const kind = /manifest|index|list/.test(mediaType) ? 'manifests' : 'blobs';
    const response = await fetch(`${registry.url}/v2/hub/${name}/${kind}/${digest}`);
    assert.ok(bytes.equals(Buffer.from(await response.arrayBuffer())), `${kind}/${digest} of ${name}`);
  }
}

/** A separate empty store, with an upstream that does not answer. */
async function emptyStore(name: string): Promise<Record<string, unknown>> {
  await cache('connected', 'stat'); // the program runs
  const configuration = await configure(name, 'http://127.0.0.1:9');
  await (await startRegistry(configuration))[Symbol.asyncDispose](); // makes the directory
  return configuration;
}

before(async () => {
  folder = await temporaryDirectory();
  upstream = await startDistribution();
  for (const [index, name] of NAMES.entries()) {
    const short = name.replace(/^hub\.example\/|:1$/g, '');
    const image = makeImage({ seed: `archive ${index}`, layers: [200_000, 3_000_000], gzip: true });
    images.set(short, image);
    await pushImage(upstream.url, short, '1', image);
  }
  own = await configure('connected', upstream.url);
  connected = await startRegistry(own);
});

after(async () => {
  await connected[Symbol.asyncDispose]();
  await upstream[Symbol.asyncDispose]();
  await folder[Symbol.asyncDispose]();
});

describe('an exported file', () => {
  let file: string;
  before(async () => {
    file = join(folder.path, 'three.tar');
    const { code, stderr } = await cache('connected', 'export', ...NAMES, '--output', file);
    assert.equal(code, 0, stderr);
  });

  test('holds every platform of every image, and skopeo copies each by its name', async () => {
    const skopeo = await debianTool('skopeo');
    for (const [short, image] of images) {
      const target = join(folder.path, `skopeo-${short.replace('/', '-')}`);
      await run(skopeo, ['--insecure-policy', 'copy', '--quiet', '--all', `oci-archive:${file}:hub.example/${short}:1`, `dir:${target}`]);
      for (const { digest, bytes } of contentsOf(image)) {
        const name = digest === image.root.digest ? 'manifest.json' : /manifest/.test(digest) ? digest : digest.slice(7);
        const found = await readFile(join(target, name)).catch(() => readFile(join(target, `${digest.slice(7)}.manifest.json`)));
        assert.ok(bytes.equals(found), `${digest} of ${short}`);
      }
    }
  });

  test('is imported by containerd 1.6 and 2.4 with the names of the images', async () => {
    for (const release of ['debian', '2.4'] as const) {
      await using containerd = await startContainerd({ release });
      await containerd.ctr('images', 'import', '--all-platforms', file);
      const listed = await containerd.ctr('images', 'ls');
      for (const [short, { root }] of images) assert.match(listed, new RegExp(`hub\\.example/${short}:1 .*${root.digest}`), release);
    }
  });

  test('with one platform is a file that crane pushes and containerd imports, under the digest of the whole index', async () => {
    const single = join(folder.path, 'single.tar');
    const { code, stderr } = await cache('connected', 'export', NAMES[0] ?? '', '--platform', 'linux/amd64', '--output', single);
    assert.equal(code, 0, stderr);
    const crane = await toolPath('crane');
    await run(crane, ['push', '--insecure', single, `${upstream.host}/pushed/one:1`]);
    const { stdout } = await run(crane, ['config', '--insecure', `${upstream.host}/pushed/one:1`]);
    assert.equal((JSON.parse(stdout) as { architecture: string }).architecture, 'amd64');
    await using containerd = await startContainerd({ release: '2.4' });
    await containerd.ctr('images', 'import', '--platform', 'linux/amd64', single);
    const { root } = images.get('apps/one') ?? assert.fail();
    assert.match(await containerd.ctr('images', 'ls'), new RegExp(`hub\\.example/apps/one:1 .*${root.digest}`));
  });

  test('goes through a pipe: export writes to stdout, import reads stdin and leaves no file of its own', async () => {
    const configuration = await emptyStore('piped');
    const start = (name: string, ...args: string[]) =>
      spawn(NODE, [...MAIN, 'cache', ...args, '--config', join(folder.path, `${name}.yaml`)], { stdio: ['pipe', 'pipe', 'inherit'] });
    const exporting = start('connected', 'export', ...NAMES, '--output', '-');
    const importing = start('piped', 'import', '-', '--json');
    const ended = [exporting, importing].map((child) => once(child, 'close'));
    const [printed] = await Promise.all([text(importing.stdout), pipeline(exporting.stdout, importing.stdin)]);
    for (const end of ended) assert.deepEqual(await end, [0, null]);
    assert.equal((JSON.parse(printed) as { images: unknown[] }).images.length, NAMES.length);
    assert.deepEqual(
      (await readdir(join(folder.path, 'piped'))).filter((name) => name.startsWith('import-')),
      [],
    );
    await using registry = await startRegistry(configuration);
    for (const [name, image] of images) await assertServed(registry, name, image);
  });

  test('is imported into a store without upstream, and served there as upstream served it', async () => {
    const configuration = await emptyStore('air-gapped');
    const imported = await cache('air-gapped', 'import', file, '--json');
    assert.equal(imported.code, 0, imported.stderr);
    await using registry = await startRegistry(configuration);
    for (const [short, image] of images) await assertServed(registry, short, image);
    const again = await cache('air-gapped', 'import', file);
    assert.match(again.stdout, /imported 3 of 3 images, .* (\d+) blobs, \1 of them were stored already/);
  });

  test('can be imported while the registry runs', async () => {
    await using registry = await startRegistry(await emptyStore('running'));
    assert.equal((await cache('running', 'import', file)).code, 0);
    const [[short, image] = assert.fail()] = images;
    await assertServed(registry, short, image);
  });

  test('is read from the store when no registry runs', async () => {
    await cache('air-gapped', 'import', file);
    const copy = join(folder.path, 'copy.tar');
    const { code, stderr } = await cache('air-gapped', 'export', ...NAMES, '--output', copy);
    assert.equal(code, 0, stderr);
    assert.ok((await readFile(copy)).equals(await readFile(file)));
  });

  test('that is cut is refused, and nothing of it is served', async () => {
    const cut = join(folder.path, 'cut.tar');
    await writeFile(cut, await readFile(file));
    await truncate(cut, Math.floor((await stat(file)).size / 2));
    const configuration = await emptyStore('cut');
    const { code, stderr } = await cache('cut', 'import', cut);
    assert.notEqual(code, 0);
    assert.match(stderr, /ends early/);
    await using registry = await startRegistry(configuration);
    assert.notEqual((await fetch(`${registry.url}/v2/hub/apps/one/manifests/1`)).status, 200);
  });
});

test('signatures are exported and imported with their images, and verify without upstream', async () => {
  const oras = await toolPath('oras');
  const { root } = images.get('apps/one') ?? assert.fail();
  const { signature, attach, verify } = signatureOf(root.bytes);
  await attach(oras, `${upstream.host}/apps/one@${root.digest}`, folder.path);
  const file = join(folder.path, 'signed.tar');
  const exported = await cache('connected', 'export', NAMES[0] ?? '', '--referrers', '--output', file);
  assert.equal(exported.code, 0, exported.stderr);
  assert.match(exported.stdout, /1 of them referrers/);

  const configuration = await emptyStore('signed');
  const imported = await cache('signed', 'import', file);
  assert.equal(imported.code, 0, imported.stderr);
  assert.match(imported.stdout, /imported 1 of 1 images and 1 referrers/);
  {
    await using registry = await startRegistry(configuration);
    const pulled = await verify(oras, `${registry.host}/hub/apps/one@${root.digest}`, folder.path);
    assert.deepEqual(pulled, signature);
  }

  const copy = join(folder.path, 'signed-copy.tar');
  const again = await cache('signed', 'export', NAMES[0] ?? '', '--referrers', '--output', copy);
  assert.equal(again.code, 0, again.stderr);
  assert.ok((await readFile(copy)).equals(await readFile(file)), 'the store knows the referrers without a registry');

  const skopeo = await debianTool('skopeo');
  await run(skopeo, [
    '--insecure-policy',
    'copy',
    '--quiet',
    '--all',
    `oci-archive:${file}:${NAMES[0]}`,
    `dir:${join(folder.path, 'skopeo-signed')}`,
  ]);
  for (const release of ['debian', '2.4'] as const) {
    await using containerd = await startContainerd({ release });
    await containerd.ctr('images', 'import', '--all-platforms', file);
    assert.match(await containerd.ctr('images', 'ls'), new RegExp(`hub\\.example/apps/one:1 .*${root.digest}`), release);
  }
});

test('an oci-archive of skopeo is imported under the given name', async () => {
  const skopeo = await debianTool('skopeo');
  const file = join(folder.path, 'skopeo.tar');
  const source = `docker://${upstream.host}/apps/two:1`;
  await run(skopeo, ['--insecure-policy', 'copy', '--quiet', '--all', '--src-tls-verify=false', source, `oci-archive:${file}:1`]);
  const configuration = await emptyStore('from-skopeo');
  const nameless = await cache('from-skopeo', 'import', file);
  assert.equal(nameless.code, 1);
  assert.match(nameless.stdout, /give one with --name|--name/);
  const { code, stderr } = await cache('from-skopeo', 'import', file, '--name', 'hub.example/apps/two');
  assert.equal(code, 0, stderr);
  await using registry = await startRegistry(configuration);
  await assertServed(registry, 'apps/two', images.get('apps/two') ?? assert.fail());
});

test('an export that fails leaves no file', async () => {
  const file = join(folder.path, 'failed.tar');
  const { code, stderr } = await cache('connected', 'export', NAMES[0] ?? '', 'hub.example/apps/absent:1', '--output', file);
  assert.notEqual(code, 0);
  assert.match(stderr, /absent/);
  assert.deepEqual(
    (await readdir(folder.path)).filter((name) => name.includes('failed.tar')),
    [],
  );
});
