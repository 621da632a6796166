import assert from 'node:assert/strict';
import { test } from 'node:test';
import { digestOf } from '../oci/digest.ts';
import { parseRepository, parseTag, type Repository } from '../oci/reference.ts';
import { blobKey } from '../store/keys.ts';
import { bytesSource } from '../store/store.ts';
import { memory } from '../testing/memory-store.ts';
import { keysOf } from '../testing/store-suite.ts';
import { createKeep, type Keep } from './keep.ts';
import { prune } from './prune.ts';

const DAY = 86_400_000;
const context = { signal: new AbortController().signal };
const repository = (name: string): Repository => parseRepository(name);

function keepFor(options: Partial<Parameters<typeof createKeep>[0]>): Keep {
  return createKeep({ hosted: [], pinned: [], pins: new Set<string>(), inUse: [], namesOf: () => [], ...options });
}

const candidate = (name: string, tag: string, digest = digestOf(Buffer.from(name + tag))) => ({
  repository: repository(name),
  tags: [parseTag(tag)],
  digest,
});

test('globs pin images by the names of the registry and by those of the world', () => {
  const namesOf = (name: Repository) => [name.replace('dockerhub/', 'docker.io/')];
  const keep = keepFor({ pinned: ['dockerhub/library/nginx:*', 'docker.io/acme/**', 'quay/a:1'], namesOf });
  const reasonOf = (name: string, tag: string) => keep(candidate(name, tag));
  assert.equal(reasonOf('dockerhub/library/nginx', '1.27'), 'pinned');
  assert.equal(reasonOf('dockerhub/acme/team/app', '1'), 'pinned');
  assert.equal(reasonOf('quay/a', '1'), 'pinned');
  assert.equal(reasonOf('quay/a', '2'), undefined);
  assert.equal(reasonOf('dockerhub/library/redis', '7'), undefined);
});

test('promise 18: the name of a private image, by whatever pull secret, is that of the image', () => {
  const [one, other] = [`by-${'a'.repeat(26)}`, `by-${'b'.repeat(26)}-${'c'.repeat(26)}`];
  const inUse = [{ repository: repository(`${other}/corp/acme/app`), reference: parseTag('1') }];
  const keep = keepFor({ pinned: ['corp/acme/tools:*'], inUse });
  assert.equal(keep(candidate(`${one}/corp/acme/app`, '1')), 'in-use');
  assert.equal(keep(candidate(`${one}/corp/acme/app`, '2')), undefined);
  assert.equal(keep(candidate(`${one}/corp/acme/tools`, '1')), 'pinned');
});

test('images that pods name by tag are kept in that repository, those named by digest in every repository', () => {
  const digest = digestOf(Buffer.from('used'));
  const keep = keepFor({
    inUse: [
      { repository: repository('hub/a'), reference: parseTag('1') },
      { repository: repository('hub/b'), reference: digest },
    ],
  });
  assert.equal(keep(candidate('hub/a', '1')), 'in-use');
  assert.equal(keep(candidate('hub/other', '1')), undefined);
  assert.equal(keep(candidate('hub/other', '1', digest)), 'in-use');
});

test('pushed images are never pruned', () => {
  const keep = keepFor({ hosted: ['local'] });
  assert.equal(keep(candidate('local/team/app', '1')), 'hosted');
  assert.equal(keep(candidate('localother/app', '1')), undefined);
});

test('if the images to keep cannot be determined, nothing is removed', async () => {
  const files = memory();
  await files.write(blobKey(digestOf(Buffer.from('a'))), bytesSource(Buffer.from('a')), context);
  const before = await keysOf(files, '');
  const run = prune(files, {
    ...context,
    limits: () => Promise.resolve({ now: Date.now() + 10 * DAY, grace: 0, maxSize: 1, maxAge: 1 }),
    keep: () => Promise.reject(new Error('no pods')),
  });
  await assert.rejects(run, /no pods/);
  assert.deepEqual(await keysOf(files, ''), before);
});
