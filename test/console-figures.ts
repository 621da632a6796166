// npm run console-figures: measures the cost and the response times of the console, on a registry
// with 100,000 images.
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { inParallel } from '../src/async/parallel.ts';
import { parseDigest, type Digest } from '../src/oci/digest.ts';
import { parseRepository, parseTag } from '../src/oci/reference.ts';
import { blobKey, memberKey, tagKey, usedKey } from '../src/store/keys.ts';
import { buildConsole } from '../console/build.ts';
import { startBrowser } from './support/browser.ts';
import { startRegistry, type ServingProgram } from './support/program.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { until } from './support/until.ts';

const { values } = parseArgs({
  options: { images: { type: 'string', default: '100000' }, seconds: { type: 'string', default: '30' } },
});
const IMAGES = Number(values.images);
const SECONDS = Number(values.seconds);
const TAGS_OF_A_REPOSITORY = 50;
const MANIFESTS_OF_A_REPOSITORY = 10;
const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const TICKS_A_SECOND = 100;

async function put(directory: string, key: string, content: Buffer | string): Promise<void> {
  const path = join(directory, key);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, content);
}

function digestOf(bytes: Buffer): Digest {
  return parseDigest(`sha256:${createHash('sha256').update(bytes).digest('hex')}`);
}

/** Writes a store as pulls would have left it: repositories of 50 tags, which name 10 images. */
async function fill(directory: string): Promise<void> {
  const layer = randomBytes(1024);
  await put(directory, blobKey(digestOf(layer)), layer);
  const repositories = Array.from({ length: Math.ceil(IMAGES / TAGS_OF_A_REPOSITORY) }, (_, n) =>
    parseRepository(`hub/team-${n % 40}/app-${n}`),
  );
  await inParallel(repositories, 16, async (repository) => {
    const digests: Digest[] = [];
    for (let n = 0; n < MANIFESTS_OF_A_REPOSITORY; n++) {
      const blob = { mediaType: 'application/octet-stream', digest: digestOf(layer), size: layer.length };
      const manifest = Buffer.from(
        JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST, config: blob, layers: [blob], annotations: { repository, n } }),
      );
      const digest = digestOf(manifest);
      digests.push(digest);
      await put(directory, blobKey(digest), manifest);
      await put(directory, memberKey(repository, digest), JSON.stringify({ mediaType: MANIFEST, size: manifest.length }));
      await put(directory, usedKey(new Date(), repository, digest), '');
    }
    for (let n = 0; n < TAGS_OF_A_REPOSITORY; n++) {
      const digest = digests[n % MANIFESTS_OF_A_REPOSITORY];
      await put(directory, tagKey(repository, parseTag(`1.${n}`)), JSON.stringify({ digest, checkedAt: new Date().toISOString() }));
    }
  });
}

/** Milliseconds of the fastest, the middle and the slowest of ten. */
async function time(url: string): Promise<string> {
  const times: number[] = [];
  for (let n = 0; n < 10; n++) {
    const started = performance.now();
    await (await fetch(url)).arrayBuffer();
    times.push(performance.now() - started);
  }
  return summarize(times);
}

/** Milliseconds until the page has painted, and until its figures are there, by the browser's own clock. `first`: in a context of its own,
 *  where nothing is cached, but which has a process for this host. `again`: the same page reloaded. */
async function timeFirstView(admin: string): Promise<Record<'first' | 'again', { painted: string; figures: string }>> {
  await using browser = await startBrowser();
  const times = {
    first: { painted: [] as number[], figures: [] as number[] },
    again: { painted: [] as number[], figures: [] as number[] },
  };
  for (let n = 0; n <= 10; n++) {
    await using own = await browser.open(`${admin}/readyz`);
    const { page } = own;
    await page.addInitScript(`new MutationObserver((_, observer) => {
      if (document.querySelector('.figures') === null) return;
      observer.disconnect();
      performance.mark('figures');
    }).observe(document, { childList: true, subtree: true })`);
    const read = (name: string) => page.evaluate<number>(`performance.getEntriesByName('${name}')[0]?.startTime ?? 0`);
    for (const which of ['first', 'again'] as const) {
      await (which === 'first' ? page.goto(`${admin}/#/overview`) : page.reload());
      await page.locator('.figures').waitFor();
      await until(async () => (await read('first-contentful-paint')) > 0, 'the page is painted');
      if (n === 0) continue; // the browser itself warms up
      times[which].painted.push(await read('first-contentful-paint'));
      times[which].figures.push(await read('figures'));
    }
  }
  const of = ({ painted, figures }: (typeof times)['first']) => ({ painted: summarize(painted), figures: summarize(figures) });
  return { first: of(times.first), again: of(times.again) };
}

/** The fastest, the middle and the slowest of ten. */
function summarize(times: readonly number[]): string {
  const sorted = times.toSorted((one, other) => one - other);
  return [sorted[0], sorted[5], sorted[9]].map((ms = 0) => ms.toFixed(0)).join(' / ');
}

/** Seconds of CPU that a process has used. */
async function cpu(pid: number): Promise<number> {
  const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) / TICKS_A_SECOND;
}

/** Sends the requests of an open page. */
async function openPage(admin: string, signal: AbortSignal): Promise<void> {
  const stream = async () => {
    const response = await fetch(`${admin}/api/events`, { signal });
    for await (const _ of response.body ?? []) if (signal.aborted) return;
  };
  const poll = async () => {
    for (; !signal.aborted; await delay(10_000, undefined, { signal })) {
      for (const path of ['overview', 'upstreams', 'clash', 'replicas'])
        await (await fetch(`${admin}/api/${path}`, { signal })).arrayBuffer();
    }
  };
  await Promise.all([stream(), poll()]).catch(() => undefined); // aborted
}

/** Pulls of a small blob a second, over some connections. */
async function pulls({ url }: ServingProgram, path: string, seconds: number): Promise<number> {
  const end = performance.now() + seconds * 1000;
  let count = 0;
  await Promise.all(
    Array.from({ length: 8 }, async () => {
      for (; performance.now() < end; count++) await (await fetch(`${url}${path}`)).arrayBuffer();
    }),
  );
  return count / seconds;
}

await buildConsole(); // before the registry looks for the page
await using folder = await temporaryDirectory();
const directory = join(folder.path, 'data');
console.log(`writing a store of ${IMAGES} images`);
await fill(directory);
await using registry = await startRegistry({
  storage: { filesystem: { directory } },
  upstreams: { hub: { url: 'http://127.0.0.1:1', hosts: ['hub.example'], tagTtl: '1d' } },
});
const { admin, pid } = registry;
const started = performance.now();
const total = async () => ((await (await fetch(`${admin}/api/images`)).json()) as { total: number }).total;
await until(async () => (await total()) >= IMAGES, 'the images are listed', 900_000);
console.log(
  `listed the first time within ${((performance.now() - started) / 1000).toFixed(1)} s; memory ${((await registry.memory()).resident / 2 ** 20).toFixed(0)} MiB`,
);
for (const path of [
  'overview',
  'images',
  'images?search=app-1999',
  'images?sort=size&order=desc',
  'images?sort=lastUsed&order=desc&offset=90000',
  'history',
]) {
  console.log(`${path}: ${await time(`${admin}/api/${path}`)} ms (fastest / middle / slowest of 10)`);
}
for (const [which, { painted, figures }] of Object.entries(await timeFirstView(admin))) {
  console.log(`view, ${which} time: painted after ${painted} ms, figures after ${figures} ms (fastest / middle / slowest of 10)`);
}
await delay(2000);
const before = await cpu(pid);
await delay(SECONDS * 1000);
const idle = (await cpu(pid)) - before;
const page = new AbortController();
const open = openPage(admin, page.signal);
await delay(2000);
const opened = await cpu(pid);
await delay(SECONDS * 1000);
const shown = (await cpu(pid)) - opened;
console.log(
  `CPU of ${SECONDS} s: ${((100 * idle) / SECONDS).toFixed(2)} % of a core without a page, ${((100 * shown) / SECONDS).toFixed(2)} % with one`,
);
page.abort();
await open;

const path = '/v2/hub/team-0/app-0/manifests/1.0';
await pulls(registry, path, 2);
const rates = { without: 0, beside: 0 };
const ROUNDS = 6;
for (let round = 0; round < ROUNDS; round++) {
  rates.without += (await pulls(registry, path, 4)) / ROUNDS;
  const beside = new AbortController();
  const watching = openPage(admin, beside.signal);
  rates.beside += (await pulls(registry, path, 4)) / ROUNDS;
  beside.abort();
  await watching;
}
const share = (rates.beside / rates.without).toFixed(3);
console.log(`pulls a second: ${rates.without.toFixed(0)} without a page, ${rates.beside.toFixed(0)} beside one: ${share}`);
