import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AUTHORIZATION, startHosted, type HostedWorld } from './support/hosted.ts';
import { makeImage, pushImage } from './support/image.ts';
import { startProgram } from './support/program.ts';
import { startScriptedUpstream } from './support/scripted-upstream.ts';

const REPOSITORY = 'local/team/app';

async function cache({ configuration }: HostedWorld, ...args: string[]): Promise<string> {
  await using program = await startProgram('cache', { log: { level: 'error' }, registry: configuration }, { args });
  assert.equal(await program.exited, 0, program.output());
  return program.output();
}

const imageOf = (seed: string) => makeImage({ seed, architectures: ['amd64'], layers: [1000] });

test('cache ls --hosted lists pushed images, without cached ones', async () => {
  await using upstream = await startScriptedUpstream();
  upstream.add('library/demo', '1', imageOf('pulled'));
  await using world = await startHosted({ more: { upstreams: { dockerhub: { url: upstream.url } } } });
  const { url } = world.registry;
  const pushed = imageOf('pushed');
  await pushImage(url, REPOSITORY, '1', pushed, AUTHORIZATION);
  assert.equal((await fetch(`${url}/v2/dockerhub/library/demo/manifests/1`)).status, 200);
  const list = async (...args: string[]) => {
    const lines = JSON.parse(await cache(world, 'ls', '--json', ...args)) as { repository: string; tags: string[]; digest: string }[];
    return lines.map(({ repository, tags, digest }) => [repository, tags.join(), digest]);
  };
  assert.deepEqual(await list('--hosted'), [[REPOSITORY, '1', pushed.root.digest]]);
  assert.deepEqual(await list('--hosted', 'dockerhub/*'), []);
  assert.deepEqual(new Set((await list()).map(([repository]) => repository)), new Set(['dockerhub/library/demo', REPOSITORY]));
});

test('retention: cache prune deletes the tags that the rules do not keep, then untagged manifests, and nothing else', async () => {
  const everything = [{ users: ['ci'] }];
  const retention = { keepTags: [{ tags: 'nightly-*', newest: 1 }], untagged: '1ms' };
  await using world = await startHosted({ local: { push: everything, delete: everything, immutableTags: ['v*'], retention } });
  const { url } = world.registry;
  for (const tag of ['v1', 'nightly-1', 'nightly-2', 'other']) await pushImage(url, REPOSITORY, tag, imageOf(tag), AUTHORIZATION);
  await pushImage(url, REPOSITORY, 'other', imageOf('replaces it'), AUTHORIZATION);
  const dryRun = await cache(world, 'prune', '--dry-run');
  assert.match(dryRun, /would delete 3 tags and manifests/);
  const deleted = [':nightly-1', `@${imageOf('nightly-1').root.digest}`, `@${imageOf('other').root.digest}`];
  for (const name of deleted) assert.ok(dryRun.includes(`  ${REPOSITORY}${name}\n`), dryRun);
  const ask = async (reference: string) => (await fetch(`${url}/v2/${REPOSITORY}/manifests/${reference}`)).status;
  assert.equal(await ask('nightly-1'), 200, 'a dry run deletes nothing');
  await cache(world, 'prune');
  const { tags } = (await (await fetch(`${url}/v2/${REPOSITORY}/tags/list`)).json()) as { tags: string[] };
  assert.deepEqual(tags, ['nightly-2', 'other', 'v1']);
  for (const gone of ['nightly-1', 'other']) assert.equal(await ask(imageOf(gone).root.digest), 404, gone);
  for (const kept of ['nightly-2', 'v1', 'replaces it']) assert.equal(await ask(imageOf(kept).root.digest), 200, kept);
});
