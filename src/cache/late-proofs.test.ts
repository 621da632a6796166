import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../../test/support/until.ts';
import { OciError } from '../oci/error.ts';
import { parseRepository } from '../oci/reference.ts';
import type { Registry } from '../oci/registry.ts';
import { createMemory, type Memory } from '../testing/memory-registry.ts';
import { openCache, type OpenCache } from '../testing/open-cache.ts';
import { addSampleContent, sampleContent } from '../testing/sample-content.ts';
import { createLateProofs } from './late-proofs.ts';

const debian = parseRepository('acme/debian');
const python = parseRepository('acme/python');
const context = { signal: new AbortController().signal };
const { image, layer } = sampleContent();
const { digest, size } = layer.descriptor;

interface Scene extends AsyncDisposable {
  served: Registry;
  opened: OpenCache;
  /** The repositories for whose layer the upstream was asked by HEAD. */
  asked: string[];
  upstream: { isAway: boolean };
}

/** An upstream with credentials that has two repositories with one image. The layer is stored for
 *  the first one, and of the second one only the manifest was requested. */
async function start(delayMs: number): Promise<Scene> {
  const opened = await openCache();
  const { cache, log } = opened;
  cache.lateProofs = createLateProofs({ delayMs, log });
  const memory = createMemory();
  for (const repository of [debian, python]) addSampleContent(memory, repository, sampleContent());
  const asked: string[] = [];
  const upstream = { isAway: false };
  const served = opened.serve('corp', switched(memory, { asked, upstream }), { credentialed: () => true });
  for await (const chunk of (await served.blob(debian, digest, context)).body) assert.ok(chunk.length > 0);
  await until(async () => (await cache.localBlobs.open(digest, { range: undefined, ...context })) !== undefined, 'the layer is stored');
  await served.manifest(python, image.digest, context);
  return { served, opened, asked, upstream, [Symbol.asyncDispose]: () => opened[Symbol.asyncDispose]() };
}

function switched({ registry }: Memory, { asked, upstream }: Pick<Scene, 'asked' | 'upstream'>): Registry {
  const check = (): void => {
    if (upstream.isAway) throw new OciError('UNAVAILABLE', 'it is away', { origin: 'upstream' });
  };
  return {
    ...registry,
    async stat(repository, blob, own) {
      check();
      asked.push(`${repository} ${blob === digest ? 'layer' : 'other'}`);
      return registry.stat(repository, blob, own);
    },
    async blob(...request) {
      check();
      return registry.blob(...request);
    },
  };
}

test('promise 12: the registry proves access to stored layers of a new image, even if no client requests them', async () => {
  await using scene = await start(10);
  const { served, asked, upstream, opened } = scene;
  await until(() => opened.cache.access.recall(parseRepository('corp/acme/python'), digest) !== undefined, 'it is recorded');
  assert.deepEqual(asked, ['acme/python layer'], 'for the stored layer, and for nothing else');
  upstream.isAway = true;
  const blob = await served.blob(python, digest, context);
  assert.equal(blob.size, size);
  for await (const chunk of blob.body) assert.ok(chunk.length > 0);
});

test('promise 12: layers that the client has requested cost no second question', async () => {
  await using scene = await start(500);
  const { served, asked } = scene;
  for await (const chunk of (await served.blob(python, digest, context)).body) assert.ok(chunk.length > 0);
  assert.deepEqual(asked, ['acme/python layer']);
  await sleep(1000);
  assert.deepEqual(asked, ['acme/python layer']);
});
