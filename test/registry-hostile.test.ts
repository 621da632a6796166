import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, readlink, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseBlobKey, parseRepositoryKey, parseUsedKey } from '../src/store/keys.ts';
import { startDistribution } from './support/distribution.ts';
import { hostileRequests } from './support/hostile-requests.ts';
import { makeImage, pushImage, sha256 } from './support/image.ts';
import { startRegistry } from './support/program.ts';
import { statuses, talk } from './support/raw-http.ts';
import { read } from './support/reading.ts';
import { until } from './support/until.ts';
import { temporaryDirectory } from './support/temporary.ts';

const REQUESTS = 2_000;
const AT_ONCE = 20;
/** A text in every file around the store, to detect reads of these files. */
const MARK = 'nobody may read this';

/** The content of a folder, without `except`: names, sizes, modification times. */
async function inventory(root: string, except: string): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const entry of await readdir(root, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (path.startsWith(`${except}/`)) continue;
    const { size, mtimeMs, ctimeMs } = await stat(path);
    found[path] = path === except ? 'the store' : `${size} bytes, ${mtimeMs}, ${ctimeMs}`;
  }
  return found;
}

async function filesIn(root: string): Promise<string[]> {
  const entries = await readdir(root, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => !entry.isDirectory()).map(({ parentPath, name }) => join(parentPath, name).slice(root.length + 1));
}

test(`${REQUESTS} hostile requests cause no crash, no 5xx of our own and no file outside the store, and the next pull works`, async (context) => {
  await using temporary = await temporaryDirectory();
  const data = join(temporary.path, 'a/b/data');
  await mkdir(data, { recursive: true });
  for (const folder of ['.', 'a', 'a/b']) {
    for (const name of ['etc/passwd', 'v1/blobs/secret', 'manifests/latest']) {
      const path = join(temporary.path, folder, name);
      await mkdir(join(path, '..'), { recursive: true });
      await writeFile(path, MARK);
    }
  }
  await using upstream = await startDistribution();
  const image = makeImage({ architectures: ['amd64'] });
  await pushImage(upstream.url, 'library/sample', 'latest', image);
  const layer = image.platforms[0]?.layers[0]?.digest ?? assert.fail();
  await using registry = await startRegistry({
    storage: { filesystem: { directory: data } },
    upstreams: { dockerhub: { url: upstream.url } },
  });
  const home = await readlink(`/proc/${registry.pid}/cwd`);
  const outside = async () => [await inventory(temporary.path, data), await inventory(home, 'nothing')];
  const before = await outside();

  const seed = Date.now(); // put the one of a failure here to see it again
  context.diagnostic(`seed ${seed}`);
  const requests = hostileRequests(REQUESTS, seed, { repository: 'dockerhub/library/sample', manifest: image.root.digest, layer });
  const counts = new Map<number, number>();
  const failed: string[] = [];
  const port = Number(new URL(registry.url).port);
  const client = async () => {
    for (let next = requests.pop(); next !== undefined; next = requests.pop()) {
      const { text } = await talk(port, next, { patience: 3_000 });
      for (const status of statuses(text.slice(0, 2_000))) {
        counts.set(status, (counts.get(status) ?? 0) + 1);
        if (status >= 500) failed.push(`${JSON.stringify(next)} → ${text.slice(0, 300)}`);
      }
      assert.ok(!text.includes(MARK) && !text.includes('root:x:0'), JSON.stringify(next));
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, client));

  const answers = [...counts].sort(([a], [b]) => a - b).map(([status, count]) => `${count} × ${status}`);
  context.diagnostic(`answers: ${answers.join(', ')}`);
  for (const status of [200, 400, 404, 405]) assert.ok((counts.get(status) ?? 0) > 0, `some are answered with ${status}`);
  // Distribution has no other answer for a layer's digest where a manifest's belongs.
  const failedUpstream = () => new Set(upstream.requests().flatMap(({ path, status }) => (status >= 500 ? path.slice('/v2/'.length) : [])));
  const unexplained = () => failed.filter((one) => ![...failedUpstream()].some((path) => one.includes(path)));
  assert.deepEqual(unexplained(), []);
  assert.deepEqual(
    [...failedUpstream()].filter((path) => path !== `library/sample/manifests/${layer}`),
    [],
  );
  assert.equal((await read(`${registry.url}/v2/dockerhub/library/sample/blobs/${layer}`)).digest, layer);
  assert.deepEqual(
    registry.log().filter(({ level }) => level === 'error' || level === 'fatal'),
    [],
  );
  const metrics = await (await fetch(`${registry.admin}/metrics`)).text();
  const named = new Set([...metrics.matchAll(/\bupstream="([^"]*)"/g)].map(([, name = '']) => name));
  assert.deepEqual([...named.difference(new Set(['ghcr', 'quay', 'k8s', 'gcr']))].sort(), ['dockerhub', 'none', 'unknown']);

  assert.deepEqual(await outside(), before);
  await until(async () => (await filesIn(data)).every((file) => !file.startsWith('.tmp/')), 'nothing half written is left');
  const files = await filesIn(data);
  context.diagnostic(`files in the store: ${files.length}`);
  assert.ok(files.length > 0);
  for (const file of files) {
    const digest = parseBlobKey(file);
    if (digest !== undefined) assert.equal(sha256(await readFile(join(data, file))), digest);
    else assert.ok(parseRepositoryKey(file) ?? parseUsedKey(file), `${file} is a key of the store`);
  }
});
