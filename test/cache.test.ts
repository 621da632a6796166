import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir, readFile, rename, rm, utimes, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { startDistribution, type Distribution } from './support/distribution.ts';
import { makeImage, pushImage, type TestImage } from './support/image.ts';
import { freeAddresses, PROGRAM, startRegistry, type ServingProgram } from './support/program.ts';
import { freePort, temporaryDirectory } from './support/temporary.ts';
import { startVersitygw, type Versitygw } from './support/versitygw.ts';
import { toolPath } from './tools/tools.ts';

const run = promisify(execFile);
const [NODE, ...MAIN] = PROGRAM;
const DAY = 86_400_000;
const APPS = ['one', 'two', 'three', 'four'];

interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

/** A registry with a store of its own, an upstream with images, and the command that maintains the
 *  store. */
interface World extends AsyncDisposable {
  upstream: Distribution;
  registry: ServingProgram;
  images: Map<string, TestImage>;
  config: string;
  directory: string;
  s3: Versitygw | undefined;
  cache(args: readonly string[], input?: string): Promise<Ended>;
  json<Result>(...args: string[]): Promise<Result>;
  /** The registry's configuration. */
  own: Record<string, unknown>;
  /** By crane, from this or another registry; rejects when that fails. */
  pull(name: string, registry?: ServingProgram): Promise<void>;
  /** Until S3 has everything. */
  stored(registry?: ServingProgram): Promise<void>;
}

async function startWorld(kind: 'filesystem' | 's3'): Promise<World> {
  const upstream = await startDistribution();
  const directory = await temporaryDirectory();
  const s3 = kind === 's3' ? await startVersitygw() : undefined;
  const images = new Map<string, TestImage>();
  for (const [index, name] of APPS.entries()) {
    // The first two are one platform each, and share a layer; the others have two.
    const image = makeImage({
      seed: index < 2 ? `shared` : name,
      layers: index < 2 ? [100_000, ...(index === 0 ? [] : [200_000])] : [300_000],
      architectures: index < 2 ? ['amd64'] : ['amd64', 'arm64'],
    });
    images.set(name, image);
    await pushImage(upstream.url, `apps/${name}`, '1', image);
  }
  const { endpoint, bucket, region, accessKeyId, secretAccessKey } = s3 ?? {};
  const own = {
    ...(await freeAddresses()),
    storage:
      s3 === undefined
        ? { filesystem: { directory: join(directory.path, 'data') } }
        : { s3: { endpoint, bucket, region, accessKeyId, secretAccessKey } },
    local: { directory: join(directory.path, 'local') },
    upstreams: { hub: { url: upstream.url, hosts: ['hub.example'] } },
  };
  const registry = await startRegistry(own);
  const config = join(directory.path, 'config.yaml');
  await writeFile(config, JSON.stringify({ registry: own }));
  const crane = await toolPath('crane');
  let pulls = 0;

  async function cache(args: readonly string[], input = ''): Promise<Ended> {
    const child = spawn(NODE, [...MAIN, 'cache', ...args, '--config', config], { cwd: directory.path });
    const ended = { code: -1, stdout: '', stderr: '' };
    child.stdout.setEncoding('utf8').on('data', (text: string) => (ended.stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (ended.stderr += text));
    child.stdin.end(input);
    [ended.code] = (await once(child, 'close')) as [number];
    return ended;
  }

  return {
    upstream,
    registry,
    images,
    config,
    own,
    directory: directory.path,
    s3,
    cache,
    async json<Result>(...args: string[]): Promise<Result> {
      const { stdout, stderr } = await cache([...args, '--json']);
      assert.notEqual(stdout, '', stderr);
      return JSON.parse(stdout) as Result;
    },
    async pull(name, from = registry) {
      const target = join(directory.path, `pull-${++pulls}`);
      await run(crane, ['pull', '--insecure', '--format=oci', `${from.host}/hub/apps/${name}:1`, target]);
      const image = images.get(name);
      assert.ok(image);
      for (const { digest, bytes } of image.platforms.flatMap(({ manifest, config, layers }) => [manifest, config, ...layers])) {
        assert.ok(bytes.equals(await readFile(join(target, 'blobs', digest.replace(':', '/')))), `${digest} of ${name}`);
      }
    },
    async stored(from = registry) {
      for (let tries = 0; tries < 300; tries++) {
        const text = await (await fetch(`${from.admin}/metrics`)).text();
        if (/^kube_registry_upload_queue_blobs 0$/m.test(text)) return;
        await delay(100);
      }
      assert.fail('everything is stored in the end');
    },
    async [Symbol.asyncDispose]() {
      await registry[Symbol.asyncDispose]();
      await s3?.[Symbol.asyncDispose]();
      await upstream[Symbol.asyncDispose]();
      await directory[Symbol.asyncDispose]();
    },
  };
}

interface Line {
  repository: string;
  tags: string[];
  digest: string;
  platforms: string[];
  platformsNamed: number;
  size: number;
  unique: number;
  lastUse: string | null;
  days: number;
}
interface Pruned {
  images: { names: string[]; because: string }[];
  blobs: number;
  bytes: number;
  before: number;
  overLimit: boolean;
}

const sizeOf = (image: TestImage): number =>
  image.platforms.reduce(
    (sum, { manifest, config, layers }) => sum + [manifest, config, ...layers].reduce((all, { size }) => all + size, 0),
    0,
  ) + (image.platforms.length > 1 ? image.root.size : 0);

describe('kube-registry cache', { concurrency: 2 }, () => {
  for (const kind of ['filesystem', 's3'] as const) testCache(kind);
});

function testCache(kind: 'filesystem' | 's3'): void {
  describe(`over ${kind}`, { concurrency: 1 }, () => {
    let world: World;
    before(async () => {
      world = await startWorld(kind);
    });
    after(() => world[Symbol.asyncDispose]());

    test('warm pulls the given images through the registry, and a node then needs no upstream', async () => {
      const { upstream, registry } = world;
      const named = ['hub.example/apps/one:1', `${registry.host}/hub/apps/two:1`, '127.0.0.1:25000/hub/apps/three:1'];
      const warmed = await world.cache(
        ['warm', ...named, '--platform', 'linux/amd64,linux/arm64', '--file', '-'],
        'hub.example/apps/four:1 # by file\n\n',
      );
      assert.equal(warmed.code, 0, warmed.stderr);
      assert.match(warmed.stdout, /^4 of 4 images are warm/);
      await world.stored();
      await upstream.stop();
      await Promise.all(APPS.map((name) => world.pull(name)));
      await upstream.start();
      const again = await world.json<{ outcome: string; bytes: number }[]>('warm', ...named, '--platform', 'all');
      assert.deepEqual(
        again.map(({ outcome, bytes }) => [outcome, bytes]),
        [
          ['warm', 0],
          ['warm', 0],
          ['warm', 0],
        ],
        'what is stored is not read again',
      );
    });

    test('warm takes the images of pods, skips those of other registries, and reports failures', async () => {
      const pod = (...images: string[]) => ({ spec: { containers: images.map((image, index) => ({ name: `c${index}`, image })) } });
      const pods = JSON.stringify({ items: [pod('hub.example/apps/one:1', 'elsewhere.example/x:1'), pod('hub.example/apps/one:1')] });
      const good = await world.cache(['warm', '--pods', '-', '--json'], pods);
      assert.equal(good.code, 0, good.stderr);
      const outcomes = (JSON.parse(good.stdout) as { image: string; outcome: string }[]).map(({ image, outcome }) => [image, outcome]);
      assert.deepEqual(
        new Map(outcomes as [string, string][]),
        new Map([
          ['hub.example/apps/one:1', 'warm'],
          ['elsewhere.example/x:1', 'skipped'],
        ]),
      );

      const bad = await world.cache(['warm', 'hub.example/apps/none:1', 'hub.example/apps/one:1', 'elsewhere.example/x:1']);
      assert.equal(bad.code, 1);
      assert.match(bad.stdout, /^failed: hub\.example\/apps\/none:1: /m);
      assert.match(bad.stdout, /^failed: elsewhere\.example\/x:1: no upstream/m);
      assert.match(bad.stdout, /^1 of 3 images are warm/m);
      const platform = await world.cache(['warm', 'hub.example/apps/three:1', '--platform', 'linux/s390x']);
      assert.equal(platform.code, 1);
      assert.match(platform.stdout, /it has no linux\/s390x, only linux\/amd64, linux\/arm64/);
    });

    test('ls shows images with their tags, platforms, sizes and use', async () => {
      const lines = await world.json<Line[]>('ls', '--sort', 'name');
      assert.deepEqual(
        lines.map(({ repository, tags, digest, platforms }) => ({ repository, tags, digest, platforms })),
        ['four', 'one', 'three', 'two'].map((name) => ({
          repository: `hub/apps/${name}`,
          tags: ['1'],
          digest: world.images.get(name)?.root.digest,
          platforms: ['three', 'four'].includes(name) ? ['linux/amd64', 'linux/arm64'] : [],
        })),
      );
      for (const { repository, size, unique, lastUse, days } of lines) {
        assert.ok(Date.now() - Date.parse(lastUse ?? '') < 2 * DAY && days >= 1, `${repository}: ${lastUse}, ${days}`);
        const image = world.images.get(repository.slice('hub/apps/'.length));
        assert.equal(size, image && sizeOf(image), repository);
        assert.equal(
          unique < size,
          ['one', 'two'].some((name) => repository.endsWith(name)),
          `${repository} shares a layer or not`,
        );
      }
      const three = world.images.get('three');
      assert.ok(three);
      const all = await world.json<Line[]>('ls', '--all', '--sort', 'name', '*/three*');
      const expected = [
        [three.root.digest, sizeOf(three)],
        ...three.platforms.map(({ manifest, config, layers }) => [
          manifest.digest,
          [manifest, config, ...layers].reduce((sum, { size }) => sum + size, 0),
        ]),
      ];
      assert.deepEqual(new Map(all.map(({ digest, unique }) => [digest, unique])), new Map(expected as [string, number][]));
      const table = await world.cache(['ls', '*/t*', '--sort', 'size']);
      assert.match(
        table.stdout,
        /^IMAGE +PLATFORMS +SIZE +UNIQUE +LAST USE +DAYS +GONE UPSTREAM\nhub\/apps\/three:1 .*\nhub\/apps\/two:1 .*\n$/,
      );
    });

    test('stat shows how much is stored', async () => {
      const stat = await world.json<{ blobs: number; bytes: number; images: number; tags: number; unnamed: { blobs: number } }>('stat');
      assert.equal(stat.images, 1 + 1 + 3 + 3);
      assert.equal(stat.tags, 4);
      assert.equal(stat.unnamed.blobs, 0);
      const { stdout } = await world.cache(['stat']);
      assert.match(stdout, /^hub +8 +\d/m);
    });

    test('verify finds a changed byte and a lost layer, and repairs both from upstream', async () => {
      assert.equal((await world.cache(['verify'])).code, 0);
      const layers = world.images.get('three')?.platforms.map(({ layers }) => layers[0]?.digest ?? '') ?? [];
      const [changed = '', lost = ''] = layers;
      await damage(world, changed, Buffer.from('wrong'));
      await damage(world, lost, undefined);
      const found = await world.cache(['verify', '--json']);
      assert.equal(found.code, 1);
      const { damages } = JSON.parse(found.stdout) as { damages: Record<string, unknown>[] };
      assert.deepEqual(
        damages.map(({ digest, kind, outcome }) => [digest, kind, outcome]),
        [
          [changed, 'wrong', 'found'],
          [lost, 'missing', 'found'],
        ],
      );
      const repaired = await world.cache(['verify', '--repair']);
      assert.equal(repaired.code, 0, repaired.stdout);
      assert.match(repaired.stdout, /2 are wrong or missing, 2 of them repaired/);
      assert.equal((await world.cache(['verify'])).code, 0);

      await damage(world, changed, Buffer.from('wrong'));
      await world.upstream.stop();
      const removed = await world.cache(['verify', '--repair']);
      await world.upstream.start();
      assert.equal(removed.code, 1);
      assert.match(removed.stdout, /removed: /);
      await world.pull('three');
    });

    test('a dry run of prune removes nothing, and a real one the same', async () => {
      await world.stored();
      const count = async () => (await world.json<{ blobs: number }>('stat')).blobs;
      const blobs = await count();
      assert.equal((await world.json<Pruned>('prune', '--max-size', '1')).blobs, 0, 'what was pulled today stays');
      const args = ['prune', '--max-size', '1', '--min-age', '0'];
      const planned = await world.json<Pruned>(...args, '--dry-run');
      assert.equal(await count(), blobs);
      assert.equal(planned.images.length, 8);
      const done = await world.json<Pruned>(...args);
      assert.deepEqual([done.blobs, done.bytes], [planned.blobs, planned.bytes]);
      assert.equal(done.blobs, blobs);
      assert.equal(await count(), 0);
    });

    test('promise 13: a pruned image is downloaded again by the next pull, and kept again', async () => {
      // By a replica that has nothing in memory or in its local tier.
      await using replica = await startRegistry({
        ...world.own,
        ...(await freeAddresses()),
        local: { directory: join(world.directory, 'replica') },
      });
      await Promise.all(APPS.map((name) => world.pull(name, replica)));
      await world.stored(replica);
      assert.equal((await world.json<Line[]>('ls')).length, 4);
      assert.equal((await world.cache(['verify'])).code, 0);
    });

    test('promise 13: the least recently used images go first, then those too old; shared layers stay', async () => {
      await becomeOld(world, { one: 0, two: 9, three: 7, four: 5 });
      const { bytes } = await world.json<{ bytes: number }>('stat');
      const small = await world.json<Pruned>('prune', '--max-size', String(bytes - 1));
      assert.deepEqual(
        small.images.map(({ names, because }) => [names, because]),
        [[['hub/apps/two:1'], 'size']],
      );
      const old = await world.json<Pruned>('prune', '--max-age', '6d');
      assert.deepEqual(old.images.map(({ names }) => names[0]?.split(/[:@]/)[0]).slice(0, 3), Array(3).fill('hub/apps/three'));
      assert.equal(old.images.length, 3);
      assert.deepEqual(
        (await world.json<Line[]>('ls', '--sort', 'name')).map(({ repository }) => repository),
        ['hub/apps/four', 'hub/apps/one'],
      );
      assert.equal((await world.cache(['verify'])).code, 0, 'nothing is missing of what stayed');
      for (const name of APPS) await world.pull(name);
    });

    test('promise 13: no pull fails while two prune everything again and again, and one of them is killed', async () => {
      // A replica whose local tier cannot hold everything, so that pruned blobs are really removed.
      const local = { directory: join(world.directory, 'small'), maxSize: '1MiB' };
      await using replica = await startRegistry({ ...world.own, ...(await freeAddresses()), local });
      let pruning = true;
      let pulls = 0;
      const puller = async (name: string): Promise<void> => {
        for (; pruning; pulls++) await world.pull(name, pulls % 2 === 0 ? replica : world.registry);
      };
      const pulling = Promise.all(APPS.map((name) => puller(name)));
      const stopAll = pulling.catch(() => undefined);
      const args = ['prune', '--max-size', '1', '--min-age', '0', '--json'];
      try {
        for (let round = 0; round < 2; round++) {
          const killed = spawn(NODE, [...MAIN, 'cache', ...args, '--config', world.config], { cwd: world.directory });
          const ended = once(killed, 'close');
          setTimeout(() => killed.kill('SIGKILL'), 1400 + 300 * round);
          await ended;
          await clearLease(world);
          const results = await Promise.all([world.cache(args), world.cache(args)]);
          for (const { code, stderr } of results) assert.ok(code === 0 || code === 1, stderr);
        }
      } finally {
        pruning = false;
        await stopAll;
      }
      await pulling;
      assert.ok(pulls >= 4, `${pulls} pulls`);
      for (const name of APPS) await world.pull(name, replica);
      await world.stored(replica);
      // A blob that was pruned from S3 may still be served from a local tier: missing there is no
      // harm.
      const { damages } = await world.json<{ damages: { kind: string }[] }>('verify');
      assert.deepEqual(
        damages.filter(({ kind }) => kind === 'wrong'),
        [],
      );
    });
  });
}

/** Changes or removes a blob in the store, and in the local tier, which would otherwise still serve
 *  it. */
async function damage({ directory, s3 }: World, digest: string, bytes: Buffer | undefined): Promise<void> {
  const key = `v1/blobs/sha256/${digest.slice(7, 9)}/${digest.slice(7)}`;
  const store = s3?.directory ?? join(directory, 'data');
  if (bytes === undefined) await rm(join(store, key));
  else await writeFile(join(store, key), bytes);
  if (s3 !== undefined) await rm(join(directory, 'local', key), { force: true });
}

/** Makes all that is stored 40 days old, and each app pulled so many days ago. */
async function becomeOld({ directory, s3 }: World, pulled: Record<string, number>): Promise<void> {
  const root = join(s3?.directory ?? join(directory, 'data'), 'v1');
  const then = new Date(Date.now() - 40 * DAY);
  for (const room of ['blobs', 'repos']) {
    for (const entry of await readdir(join(root, room), { recursive: true, withFileTypes: true })) {
      if (entry.isFile()) await utimes(join(entry.parentPath, entry.name), then, then);
    }
  }
  const days = await readdir(join(root, 'used'));
  for (const [name, ago] of Object.entries(pulled)) {
    const target = join(root, 'used', new Date(Date.now() - ago * DAY).toISOString().slice(0, 10), 'hub/apps');
    await mkdir(target, { recursive: true });
    for (const day of days) {
      const from = join(root, 'used', day, 'hub/apps', name);
      if (dirname(from) !== target)
        await rename(from, join(target, name)).catch((error: NodeJS.ErrnoException) => assert.equal(error.code, 'ENOENT'));
    }
  }
}

/** Otherwise the next process would wait for half a minute after a killed one. */
async function clearLease({ directory, s3 }: World): Promise<void> {
  await rm(join(s3?.directory ?? join(directory, 'data'), 'v1/pruning'), { force: true });
}

test('wrong usage and configuration end with exit code 2 and say what is accepted', async () => {
  await using temporary = await temporaryDirectory();
  const cases: [string[], RegExp][] = [
    [['prune', '--max-size', 'lots'], /--max-size: found "lots"; accepted: a size such as 64MiB/],
    [['prune', '--max-age', '5'], /--max-age: found "5"; accepted: a duration such as/],
    [['verify', '--parallel', '0'], /--parallel: found "0"; accepted: a number from 1 to 64/],
    [['ls', '--sort', 'colour'], /Allowed choices are/],
    [['ls', '--nonsense'], /unknown option/],
    [['ls'], /registry\.storage\.filesystem\.directory: found .\/data, which does not exist/],
    [['warm'], /found no image; accepted: images, --file, --cluster or --pods/],
    [['warm', '--cluster'], /--cluster: found no cluster that can be reached from here .* cache warm --pods -/],
    [['warm', '--pods', 'package.json'], /--pods: found input that cannot be read .*ENOENT/],
    [['warm', 'nginx', '--registry', `http://127.0.0.1:${await freePort()}`], /no registry answers at/],
  ];
  for (const [args, message] of cases) {
    const child = spawn(NODE, [...MAIN, 'cache', ...args], { cwd: temporary.path, env: { PATH: process.env['PATH'] } });
    let stderr = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    const [code] = (await once(child, 'close')) as [number];
    assert.equal(code, 2, `${args.join(' ')}: ${stderr}`);
    assert.match(stderr, message);
  }
});
