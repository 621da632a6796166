import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { build, type Builder } from './support/buildkit.ts';
import { AUTHORIZATION, startHosted, USER, type HostedWorld } from './support/hosted.ts';
import { makeImage, pushImage, randomBytes, writeLayout, type TestImage } from './support/image.ts';
import { debianTool, toolPath } from './tools/tools.ts';

const run = promisify(execFile);

/** Clients that push as docs/hosted.md shows it, and pull without a login. */
describe('an image that a client pushes is pulled byte for byte by another', () => {
  let world: HostedWorld;
  let image: TestImage;
  let layout: string;

  before(async () => {
    world = await startHosted();
    image = makeImage({ seed: 'clients', gzip: true });
    layout = join(world.directory, 'layout');
    await writeLayout(layout, image);
  });
  after(() => world[Symbol.asyncDispose]());

  async function assertPulled(repository: string, pushed = image): Promise<void> {
    const target = join(world.directory, repository.replaceAll('/', '-'));
    const skopeo = await debianTool('skopeo');
    await run(skopeo, [
      '--insecure-policy',
      'copy',
      '--quiet',
      '--all',
      '--src-tls-verify=false',
      `docker://${world.registry.host}/${repository}:1`,
      `oci:${target}:1`,
    ]);
    for (const { digest, bytes } of [
      pushed.root,
      ...pushed.platforms.flatMap(({ manifest, config, layers }) => [manifest, config, ...layers]),
    ]) {
      assert.ok(bytes.equals(await readFile(join(target, 'blobs', digest.replace(':', '/')))), `${digest} of ${repository}`);
    }
  }

  test('crane', async () => {
    const home = join(world.directory, 'crane');
    await mkdir(home);
    const env = { ...process.env, DOCKER_CONFIG: home };
    const crane = await toolPath('crane');
    await run(crane, ['auth', 'login', world.registry.host, '-u', USER.username, '-p', USER.password], { env });
    await run(crane, ['push', '--insecure', layout, `${world.registry.host}/local/by/crane:1`], { env });
    await assertPulled('local/by/crane');
    // A copy within the registry mounts its blobs.
    await run(crane, ['copy', '--insecure', `${world.registry.host}/local/by/crane:1`, `${world.registry.host}/local/by/copy:1`], { env });
    await assertPulled('local/by/copy');
    const { stdout } = await run(crane, ['ls', '--insecure', `${world.registry.host}/local/by/copy`], { env });
    assert.equal(stdout.trim(), '1');
    await run(crane, ['delete', '--insecure', `${world.registry.host}/local/by/copy:1`], { env });
    await assert.rejects(run(crane, ['digest', '--insecure', `${world.registry.host}/local/by/copy:1`], { env }));
  });

  test("the former client of Docker's engine, which mounts blobs of another repository", async () => {
    const docker = await toolPath('docker-push');
    const single = makeImage({ seed: 'docker', gzip: true, architectures: ['amd64'], layers: [3_000_000, 1000] });
    const directory = join(world.directory, 'docker-layout');
    await writeLayout(directory, single);
    const push = async (repository: string, ...more: string[]): Promise<string> => {
      const user = ['-user', `${USER.username}:${USER.password}`];
      return (await run(docker, ['-url', world.registry.url, ...user, ...more, directory, repository, '1'])).stdout;
    };
    assert.match(await push('local/by/docker'), /^(?:pushed: .*\n){3}$/);
    assert.match(await push('local/by/docker'), /^(?:there: .*\n){3}$/);
    assert.match(await push('local/by/docker-copy', '-from', 'local/by/docker'), /^(?:mounted: .*\n){3}$/);
    assert.match(await push('local/by/docker-other', '-from', 'local/by/none'), /^(?:pushed: .*\n){3}$/);
    for (const name of ['docker', 'docker-copy', 'docker-other']) await assertPulled(`local/by/${name}`, single);
  });

  test('BuildKit: an image, and its build cache for a builder that has nothing', async () => {
    const { host, url } = world.registry;
    const base = makeImage({ seed: 'buildkit', gzip: true, architectures: ['amd64'] });
    await pushImage(url, 'local/by/base', '1', base, AUTHORIZATION);
    const context = join(world.directory, 'context');
    await mkdir(context);
    await writeFile(join(context, 'source'), randomBytes('source', 300_000));
    const stages = [
      'FROM scratch AS sources',
      'COPY source /source',
      `FROM ${host}/local/by/base:1`,
      'COPY --from=sources /source /program',
    ];
    await writeFile(join(context, 'Dockerfile'), stages.join('\n'));
    const builder = (name: string): Builder => ({
      directory: join(world.directory, name),
      config: `[registry."${host}"]\n  http = true\n`,
      credentials: { auths: { [host]: { auth: AUTHORIZATION.slice('Basic '.length) } } },
    });
    const [image, cache] = [`${host}/local/by/buildkit`, `${host}/local/cache/app`];
    const crane = await toolPath('crane');
    const layersOf = async (name: string): Promise<string[]> => {
      await run(crane, ['validate', '--insecure', '--remote', name]);
      const manifest = JSON.parse((await run(crane, ['manifest', '--insecure', name])).stdout) as { layers: { digest: string }[] };
      return manifest.layers.map(({ digest }) => digest);
    };

    const first = await build(builder('builder'), context, ['-push', `${image}:1`, '-cache-to', cache]);
    assert.match(first, /^(?:done: .*COPY.*\n){2}$/m);
    const pushed = await layersOf(`${image}:1`);
    assert.deepEqual(
      pushed.slice(0, 2),
      base.platforms[0]?.layers.map(({ digest }) => digest),
    );
    const second = await build(builder('other-builder'), context, ['-push', `${image}-again:1`, '-cache-from', cache]);
    assert.match(second, /^(?:cached: .*COPY.*\n){2}$/m);
    assert.deepEqual(await layersOf(`${image}-again:1`), pushed);
  });

  test('skopeo', async () => {
    const skopeo = await debianTool('skopeo');
    const credentials = `${USER.username}:${USER.password}`;
    const target = `docker://${world.registry.host}/local/by/skopeo:1`;
    await run(skopeo, [
      '--insecure-policy',
      'copy',
      '--quiet',
      '--all',
      '--dest-tls-verify=false',
      '--dest-creds',
      credentials,
      `oci:${layout}`,
      target,
    ]);
    await assertPulled('local/by/skopeo');
  });

  test('buildah', async () => {
    const buildah = await debianTool('buildah');
    const storage = [
      '--root',
      join(world.directory, 'buildah'),
      '--runroot',
      join(world.directory, 'buildah-run'),
      '--storage-driver',
      'vfs',
    ];
    const { stdout } = await run(buildah, [...storage, 'pull', '--quiet', '--policy', 'always', 'oci:layout'], { cwd: world.directory });
    const credentials = `${USER.username}:${USER.password}`;
    const target = `docker://${world.registry.host}/local/by/buildah:1`;
    await run(buildah, [...storage, 'push', '--quiet', '--tls-verify=false', '--creds', credentials, stdout.trim(), target]);
    const crane = await toolPath('crane');
    await run(crane, ['validate', '--insecure', '--remote', `${world.registry.host}/local/by/buildah:1`]);
  });

  test('oras: a file, an artifact that refers to it, and its referrers', async () => {
    const oras = await toolPath('oras');
    const env = { ...process.env, DOCKER_CONFIG: join(world.directory, 'oras') };
    await mkdir(env.DOCKER_CONFIG);
    const login = ['--plain-http', '--username', USER.username, '--password', USER.password];
    await run(oras, ['login', ...login, world.registry.host], { env });
    const file = randomBytes('oras', 300_000);
    await writeFile(join(world.directory, 'file.bin'), file);
    const name = `${world.registry.host}/local/by/oras:1`;
    const options = { env, cwd: world.directory };
    await run(oras, ['push', '--plain-http', name, 'file.bin:application/octet-stream'], options);
    await writeFile(join(world.directory, 'signature.txt'), 'signed');
    await run(
      oras,
      ['attach', '--plain-http', '--artifact-type', 'application/vnd.example.signature', name, 'signature.txt:text/plain'],
      options,
    );
    const { stdout } = await run(oras, ['discover', '--plain-http', '--format', 'json', name], options);
    assert.match(stdout, /application\/vnd\.example\.signature/);
    const pulled = join(world.directory, 'pulled');
    await run(oras, ['pull', '--plain-http', '--output', pulled, name], options);
    assert.ok(file.equals(await readFile(join(pulled, 'file.bin'))));
  });

  test('helm', async () => {
    const helm = await toolPath('helm');
    const home = join(world.directory, 'helm');
    const env = { ...process.env, HELM_CONFIG_HOME: home, HELM_CACHE_HOME: home, HELM_DATA_HOME: home };
    const options = { env, cwd: world.directory };
    await run(helm, ['create', 'example'], options);
    await run(helm, ['package', 'example'], options);
    await run(
      helm,
      ['registry', 'login', '--plain-http', '--username', USER.username, '--password', USER.password, world.registry.host],
      options,
    );
    const repository = `oci://${world.registry.host}/local/charts`;
    await run(helm, ['push', '--plain-http', 'example-0.1.0.tgz', repository], options);
    await run(helm, ['pull', '--plain-http', '--version', '0.1.0', '--destination', home, `${repository}/example`], options);
    const [pushed, pulled] = [join(world.directory, 'example-0.1.0.tgz'), join(home, 'example-0.1.0.tgz')];
    assert.ok((await readFile(pushed)).equals(await readFile(pulled)));
  });
});
