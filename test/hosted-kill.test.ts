import assert from 'node:assert/strict';
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { createChance, type Chance } from './support/chance.ts';
import { AUTHORIZATION, startHosted, startStorage, type HostedWorld } from './support/hosted.ts';
import { content, makeImage, randomBytes, sha256, type Content, type TestImage } from './support/image.ts';
import { until } from './support/until.ts';
import { freeAddresses, startProgram, startRegistry, type ServingProgram } from './support/program.ts';

/** HOSTED_PUSHES=200 for the long run. */
const PUSHES = Number(process.env['HOSTED_PUSHES'] ?? 24);
const CLIENTS = 8;
const REPLICAS = 3;
const DAY_MS = 24 * 3_600_000;
/** Tries of one request: a replica takes a second or more to start. */
const MAX_TRIES = 200;

interface Killed extends AsyncDisposable {
  kills: number;
  /** The URL of some replica, which may be gone. */
  any(chance: Chance): string;
  /** Stops killing replicas. @returns the URLs of all replicas, which run */
  end(): Promise<string[]>;
}

/** Replicas over the world's storage. Until `end`, one after the other is killed and started again.
 *  */
async function startKilled(world: HostedWorld, seed: number): Promise<Killed> {
  const chance = createChance(seed);
  const configurations = await Promise.all(
    Array.from({ length: REPLICAS }, async (_, replica) => ({
      ...world.configuration,
      ...(await freeAddresses()),
      local: { directory: join(world.directory, `killed-${replica}`) },
    })),
  );
  const replicas = await Promise.all(configurations.map((configuration) => startRegistry(configuration)));
  const urls = replicas.map(({ url }) => url);
  let isOver = false;
  const self = { kills: 0 };
  async function kill(): Promise<void> {
    while (!isOver) {
      await delay(100 + chance.below(700));
      const victim = chance.below(REPLICAS);
      await replicas[victim]?.stop('SIGKILL');
      self.kills++;
      replicas[victim] = await startRegistry(configurations[victim]);
    }
  }
  const killing = kill();
  return Object.assign(self, {
    any: (chance: Chance) => urls[chance.below(REPLICAS)] ?? '',
    async end() {
      isOver = true;
      await killing;
      return urls;
    },
    async [Symbol.asyncDispose]() {
      isOver = true;
      await killing.catch(() => undefined);
      for (const replica of replicas) await replica[Symbol.asyncDispose]();
    },
  });
}

/** The content that a replica has acknowledged to a client. */
interface Acknowledged {
  /** `repository@digest` */
  blobs: Map<string, Content>;
  /** `repository:tag` */
  images: Map<string, TestImage>;
}

interface Client {
  killed: Killed;
  chance: Chance;
  acknowledged: Acknowledged;
}

/** Sends a request to some replica. @returns undefined: it was not answered, or the replica cannot
 *  answer it now */
async function ask(
  { killed, chance }: Client,
  path: string,
  { method, body, type }: { method: string; body?: Uint8Array; type?: string },
): Promise<Response | undefined> {
  try {
    const response = await fetch(killed.any(chance) + path, {
      method,
      headers: { authorization: AUTHORIZATION, ...(type === undefined ? {} : { 'content-type': type }) },
      ...(body === undefined ? {} : { body: new Uint8Array(body) }),
    });
    await response.arrayBuffer();
    return response.status >= 500 || response.status === 429 ? undefined : response;
  } catch {
    return undefined;
  }
}

/** Repeats `attempt` until it says that it has succeeded, as clients of registries do. */
async function persist(what: string, attempt: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < MAX_TRIES; tries++) {
    if (await attempt()) return;
    await delay(100);
  }
  throw new Error(`${what} was refused ${MAX_TRIES} times`);
}

/** Uploads a blob in one request or in chunks, each to some replica. After a failure it begins
 *  again. */
async function pushBlob(client: Client, repository: string, blob: Content): Promise<void> {
  const { chance, acknowledged } = client;
  await persist(`${blob.digest} of ${repository}`, async () => {
    const known = await ask(client, `/v2/${repository}/blobs/${blob.digest}`, { method: 'HEAD' });
    if (known?.status === 200) return true;
    const begun = await ask(client, `/v2/${repository}/blobs/uploads/`, { method: 'POST' });
    const location = begun?.headers.get('location');
    if (location === null || location === undefined) return false;
    const cut = chance.below(3) === 0 ? 0 : chance.below(blob.size);
    if (cut > 0 && (await ask(client, location, { method: 'PATCH', body: blob.bytes.subarray(0, cut) }))?.status !== 202) return false;
    const rest = { method: 'PUT', body: blob.bytes.subarray(cut) };
    return (await ask(client, `${location}?digest=${blob.digest}`, rest))?.status === 201;
  });
  acknowledged.blobs.set(`${repository}@${blob.digest}`, blob);
}

async function pushImage(client: Client, repository: string, tag: string, image: TestImage): Promise<void> {
  for (const { config, layers, manifest } of image.platforms) {
    for (const blob of [config, ...layers]) await pushBlob(client, repository, blob);
    const body = { method: 'PUT', body: manifest.bytes, type: manifest.mediaType };
    await persist(`${repository}:${tag}`, async () => {
      const answer = await ask(client, `/v2/${repository}/manifests/${tag}`, body);
      assert.ok(answer === undefined || answer.status === 201, `${repository}:${tag}: ${answer?.status}`);
      return answer !== undefined;
    });
  }
  client.acknowledged.images.set(`${repository}:${tag}`, image);
}

async function assertServed(url: string, { blobs, images }: Acknowledged): Promise<void> {
  for (const [name, blob] of blobs) {
    assert.equal(sha256(await read(`${url}/v2/${name.replace('@', '/blobs/')}`)), blob.digest, name);
  }
  for (const [name, { root }] of images) {
    assert.equal(sha256(await read(`${url}/v2/${name.replace(':', '/manifests/')}`)), root.digest, name);
  }
}

async function read(url: string): Promise<Buffer> {
  const response = await fetch(url);
  const bytes = Buffer.from(await response.arrayBuffer());
  assert.equal(response.status, 200, `${url}: ${bytes.toString().slice(0, 1000)}`);
  return bytes;
}

/** A module that moves a program's clock forward. */
async function writeClock(directory: string, ahead: number): Promise<string> {
  const file = join(directory, 'clock.mjs');
  await writeFile(
    file,
    `const Real = Date;
globalThis.Date = class extends Real {
  constructor(...args) { args.length === 0 ? super(Real.now() + ${ahead}) : super(...args); }
  static now() { return Real.now() + ${ahead}; }
};`,
  );
  return pathToFileURL(file).href;
}

async function filesBelow(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { withFileTypes: true, recursive: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name).slice(directory.length + 1));
}

test(`promise 22: ${PUSHES} pushes by ${CLIENTS} clients over S3 while replicas are killed: everything acknowledged is stored correctly, and the daily cleanup removes everything else`, async (t) => {
  await using storage = await startStorage('s3');
  await using world = await startHosted({ ...storage.options });
  const acknowledged: Acknowledged = { blobs: new Map(), images: new Map() };
  const seed = Date.now() % 100_000;
  await using killed = await startKilled(world, seed);
  const shared = randomBytes(`shared ${seed}`, 300_000);
  let next = 0;
  await Promise.all(
    Array.from({ length: CLIENTS }, async (_, number) => {
      const client = { killed, chance: createChance(seed + number), acknowledged };
      for (let push = next++; push < PUSHES; push = next++) {
        const image = withLayer(makeImage({ seed: `${seed} ${push}`, architectures: ['amd64'], layers: [200_000, 1_000] }), shared);
        await pushImage(client, `local/team/app-${push % 3}`, `v${push}`, image);
      }
    }),
  );
  // Abandoned uploads.
  for (const url of await killed.end()) {
    const begun = await fetch(`${url}/v2/local/team/app-0/blobs/uploads/`, { method: 'POST', headers: { authorization: AUTHORIZATION } });
    const location = `${url}${begun.headers.get('location') ?? ''}`;
    await fetch(location, {
      method: 'PATCH',
      headers: { authorization: AUTHORIZATION },
      body: new Uint8Array(randomBytes('left', 10_000)),
    });
    await assertServed(url, acknowledged);
  }
  t.diagnostic(`seed ${seed}: ${acknowledged.images.size} images, ${acknowledged.blobs.size} blobs, ${killed.kills} replicas killed`);
  assert.equal(acknowledged.images.size, PUSHES);
  assert.ok(killed.kills >= 3, `only ${killed.kills} replicas were killed`);
  await killed[Symbol.asyncDispose]();

  const clock = { env: { NODE_OPTIONS: `--import=${await writeClock(world.directory, 2 * DAY_MS)}` } };
  await using later: ServingProgram = await startRegistry(
    { ...world.configuration, local: { directory: join(world.directory, 'later') } },
    clock,
  );
  await using pruning = await startProgram('cache', { registry: world.configuration }, { args: ['prune', '--force'], ...clock });
  assert.equal(await pruning.exited, 0, pruning.output());
  await assertServed(later.url, acknowledged);
  const directory = storage.directory ?? '';
  const named = [...new Set([...acknowledged.images.values()].flatMap((image) => digestsOf(image)))].sort();
  const blobs = (await filesBelow(directory)).filter((file) => file.startsWith('v1/blobs/'));
  assert.deepEqual(
    blobs.map((file) => `sha256:${file.split('/').at(-1) ?? ''}`).sort(),
    named,
    'blobs that a manifest names, and no others',
  );
  // The start of the later one gives up what S3 has of unfinished objects.
  await until(async () => (await leftOvers(directory)).length === 0, 'uploads, claims and parts of objects are gone').catch(async () => {
    assert.deepEqual(await leftOvers(directory), []);
  });
});

async function leftOvers(directory: string): Promise<string[]> {
  return (await filesBelow(directory)).filter((file) => !/^v1\/(?:blobs|repos|owners|used|pruning)/.test(file));
}

/** An image with one more layer, which other images have too. */
function withLayer(image: TestImage, bytes: Buffer): TestImage {
  const [platform] = image.platforms;
  assert.ok(platform);
  const [first] = platform.layers;
  const layer = content(first?.mediaType ?? '', bytes);
  const document = JSON.parse(platform.manifest.bytes.toString()) as { layers: unknown[] };
  document.layers.push({ mediaType: layer.mediaType, digest: layer.digest, size: layer.size });
  const manifest = content(platform.manifest.mediaType, Buffer.from(JSON.stringify(document)));
  return { root: manifest, platforms: [{ ...platform, manifest, layers: [...platform.layers, layer] }] };
}

function digestsOf({ root, platforms }: TestImage): string[] {
  return [root, ...platforms.flatMap(({ config, layers }) => [config, ...layers])].map(({ digest }) => digest);
}
