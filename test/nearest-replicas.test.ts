import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startFakeNode } from './support/fake-node.ts';
import { makeImage } from './support/image.ts';
import { startReplicas } from './support/replicas.ts';
import { startScriptedUpstream } from './support/scripted-upstream.ts';
import { askAsStranger } from './support/stranger.ts';
import { until } from './support/until.ts';
import { startVersitygw } from './support/versitygw.ts';

const MiB = 2 ** 20;

test('promise 24: replicas track a blob together, whichever of them an agent asks', async () => {
  await using upstream = await startScriptedUpstream();
  await using s3 = await startVersitygw();
  await using replicas = await startReplicas({ upstreams: { dockerhub: { url: upstream.url } }, s3, count: 2 });
  const [one, two] = replicas.all;
  assert.ok(one !== undefined && two !== undefined);
  const origins: string[] = [one.url, two.url];
  await using holder = await startFakeNode();
  // Each blob is tracked by one of the two; several blobs have both as owners, most likely.
  for (let number = 0; number < 4; number++) {
    const image = makeImage({ architectures: ['amd64'], layers: [2 * MiB], seed: `image ${number}` });
    upstream.add(`library/demo-${number}`, '1', image);
    const path = `/v2/dockerhub/library/demo-${number}`;
    for (const origin of origins) assert.equal((await fetch(`${origin}${path}/manifests/1`)).status, 200);
    const blob = `${path}/blobs/${image.platforms[0]?.layers[0]?.digest}`;
    await until(async () => {
      await holder.claim(one.url + blob);
      return (await askAsStranger(two.url + blob)).location.startsWith(`http://${holder.node.address}/`);
    }, 'the other replica names the node');
    assert.match((await askAsStranger(one.url + blob)).location, new RegExp(`^http://${holder.node.address}/`), 'and so does this one');
  }
});
