import { execFile } from 'node:child_process';
import { cp, mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { temporaryDirectory } from '../support/temporary.ts';
import { RECIPES } from '../tools/recipes.ts';
import { debianTool, toolPath, toolsDirectory } from '../tools/tools.ts';

const run = promisify(execFile);
const root = join(import.meta.dirname, '../..');

/** An image as `docker save` would write it. */
export interface ImageArchive {
  reference: string;
  path: string;
}

export const PAUSE = 'registry.k8s.io/pause:3.10';
/** The name that the tests give to the image of the Dockerfile. */
export const KUBE_REGISTRY = { registry: 'localhost', repository: 'kube-registry', tag: 'test' };

export function imageName({ registry, repository, tag }: typeof KUBE_REGISTRY): string {
  return `${registry}/${repository}:${tag}`;
}

/** Builds images without Docker and without a registry: the base images of a Dockerfile are
 *  replaced by bases that are built here. */
export interface ImageBuilder {
  /** The Dockerfile of this checkout, and a layer by which its programs trust this authority
   *  (PEM). */
  kubeRegistry(authority: string): Promise<ImageArchive>;
  /** An image with one static program, which it starts. */
  program(reference: string, file: string): Promise<ImageArchive>;
  pause(): Promise<ImageArchive>;
  coredns(): Promise<ImageArchive>;
  /** The image of the chart's objectStorage.image. */
  versitygw(): Promise<ImageArchive>;
}

/** Archives go into `directory`. Needs root. @throws Error: a Debian package is missing, or a build
 *  failed */
export async function createImageBuilder(directory: string): Promise<ImageBuilder> {
  const buildah = await createBuildah();
  async function commit(container: string, reference: string): Promise<ImageArchive> {
    const path = join(directory, `${reference.replaceAll(/\W/g, '-')}.tar`);
    await buildah('commit', '--quiet', container, `docker-archive:${path}:${reference}`);
    await buildah('rm', container);
    return { reference, path };
  }
  async function program(reference: string, file: string): Promise<ImageArchive> {
    const container = await buildah('from', 'scratch');
    await buildah('copy', '--quiet', container, file, '/program');
    await buildah('config', '--entrypoint', '["/program"]', container);
    return commit(container, reference);
  }
  return {
    program,
    coredns: async () => program(`registry.k8s.io/coredns/coredns:${RECIPES.coredns.version}`, await toolPath('coredns')),
    versitygw: async () => program(`ghcr.io/versity/versitygw:${RECIPES.versitygw.version}`, await toolPath('versitygw')),
    async pause() {
      const file = join(directory, 'pause');
      await run('go', ['build', '-o', file, '.'], {
        cwd: join(import.meta.dirname, 'pause'),
        env: { ...process.env, CGO_ENABLED: '0', GO111MODULE: 'off' },
      });
      return program(PAUSE, file);
    },
    async kubeRegistry(authority) {
      const reference = await buildKubeRegistry(buildah);
      const file = join(directory, 'ca.crt');
      await writeFile(file, authority);
      const container = await buildah('from', reference);
      await buildah('copy', '--quiet', container, file, CERTIFICATES);
      await buildah('config', '--env', `NODE_EXTRA_CA_CERTS=${CERTIFICATES}`, container);
      return commit(container, reference);
    },
  };
}

/** Builds the layers that need packages from the network. `kubeRegistry` can then reuse all layers
 *  without a network.
 *  @throws Error: a Debian package is missing, or the build failed */
export async function prepareImages(): Promise<void> {
  const buildah = await createBuildah();
  await dropLayers(buildah);
  await makeBases(buildah);
  await buildKubeRegistry(buildah);
}

/** @returns the image's reference */
async function buildKubeRegistry(buildah: Buildah): Promise<string> {
  const reference = imageName(KUBE_REGISTRY);
  const bases = ['NODE_IMAGE=localhost/base', 'PYTHON_IMAGE=localhost/base', 'BASE_IMAGE=localhost/libraries'];
  const options = ['--layers', '--quiet', '--isolation', 'chroot'];
  await buildah('bud', ...options, ...bases.flatMap((base) => ['--build-arg', base]), '--tag', reference, root);
  return reference;
}

type Buildah = (...args: string[]) => Promise<string>;

async function createBuildah(): Promise<Buildah> {
  // In a mount namespace, so that its mounts are removed with it.
  const command = ['--mount', '--', await debianTool('buildah')];
  const storage = [
    '--storage-driver',
    'overlay',
    '--root',
    join(toolsDirectory, 'buildah'),
    '--runroot',
    join(toolsDirectory, 'buildah-run'),
  ];
  return async (...args) => (await run('unshare', [...command, ...storage, ...args], { maxBuffer: 64 * 1024 * 1024 })).stdout.trim();
}

/** Layers of previous builds speed up the next one. They are removed before there are too many, and
 *  so are the remains of interrupted builds. */
async function dropLayers(buildah: Buildah): Promise<void> {
  const images = await buildah('images', '--quiet');
  if (images.split('\n').length < 20) return;
  await buildah('rm', '--all');
  await buildah('rmi', '--prune', '--force');
}

const PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const CERTIFICATES = '/etc/ssl/certs/ca-certificates.crt';

/** localhost/base: Debian with Node, npm and pip, for the build stages. localhost/libraries: the
 *  content of distroless, for the final stage. They are built once. */
async function makeBases(buildah: Buildah): Promise<void> {
  const images = await buildah('images', '--format', '{{.Name}}');
  if (images.includes('localhost/base') && images.includes('localhost/libraries')) return;
  process.stderr.write('images: making the bases, once\n');
  await using temporary = await temporaryDirectory();
  const debian = join(temporary.path, 'debian');
  const include = 'ca-certificates,python3-pip,libatomic1';
  await run(await debianTool('debootstrap'), ['--variant=minbase', `--include=${include}`, 'bookworm', debian], {
    maxBuffer: 64 * 1024 * 1024,
  });
  await addNode(debian);
  // The package sources of this machine.
  await cp(CERTIFICATES, join(debian, CERTIFICATES));
  await cp('/etc/resolv.conf', join(debian, 'etc/resolv.conf'));
  await commitBase(buildah, { directory: debian, tag: 'localhost/base', env: [PATH, `NODE_EXTRA_CA_CERTS=${CERTIFICATES}`] });

  const libraries = join(temporary.path, 'libraries');
  const { stdout } = await run('chroot', [debian, 'dpkg', '-L', 'libc6', 'libgcc-s1', 'libstdc++6']);
  for (const path of stdout.match(/^(?:\/usr)?\/lib[^/\s]*(?:\/[^/\s]+)?\/[^/\s]+\.so[.\d]*$/gm) ?? [])
    await copyFile(debian, libraries, path);
  await copyFile(debian, libraries, CERTIFICATES);
  await mkdir(join(libraries, 'tmp'), { mode: 0o1777 });
  await commitBase(buildah, { directory: libraries, tag: 'localhost/libraries', env: [PATH] });
}

async function addNode(debian: string): Promise<void> {
  await cp(process.execPath, join(debian, 'usr/local/bin/node'));
  const { stdout } = await run('sh', ['-c', 'readlink -f "$(command -v npm)"']);
  const npm = join(dirname(stdout.trim()), '..');
  await cp(npm, join(debian, 'usr/local/lib/node_modules/npm'), { recursive: true });
  await run('ln', ['-s', '../lib/node_modules/npm/bin/npm-cli.js', join(debian, 'usr/local/bin/npm')]);
}

async function copyFile(from: string, to: string, path: string): Promise<void> {
  await mkdir(join(to, dirname(path)), { recursive: true });
  await cp(join(from, path), join(to, path), { dereference: true });
}

async function commitBase(buildah: Buildah, base: { directory: string; tag: string; env: string[] }): Promise<void> {
  const container = await buildah('from', 'scratch');
  await buildah('add', '--quiet', container, base.directory, '/');
  await buildah('config', ...base.env.flatMap((variable) => ['--env', variable]), container);
  await buildah('commit', '--quiet', container, base.tag);
  await buildah('rm', container);
}
