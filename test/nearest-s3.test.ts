import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { makeImage } from './support/image.ts';
import { readBlob } from './support/nodes.ts';
import { startAgent, startRegistry } from './support/program.ts';
import { metric } from './support/replicas.ts';
import { startScriptedUpstream } from './support/scripted-upstream.ts';
import { startTap } from './support/tap.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { until } from './support/until.ts';
import { startVersitygw } from './support/versitygw.ts';

const MiB = 2 ** 20;

test('promise 24: agents read blobs from S3 itself, other clients do not, and without S3 the registry sends them', async () => {
  await using upstream = await startScriptedUpstream();
  await using s3 = await startVersitygw();
  await using network = new AsyncDisposableStack();
  const front = network.use(await startTap(s3.endpoint));
  await using temporary = await temporaryDirectory();
  const image = makeImage({ architectures: ['amd64'], layers: [4 * MiB] });
  upstream.add('library/demo', '1', image);
  const knows = { upstreams: { dockerhub: { url: upstream.url } } };
  const { endpoint, bucket, region, accessKeyId, secretAccessKey } = s3;
  await using registry = await startRegistry({
    storage: { s3: { endpoint, bucket, region, accessKeyId, secretAccessKey, redirect: { clients: 'agents', endpoint: front.url } } },
    local: { directory: join(temporary.path, 'local') },
    ...knows,
  });
  await using agent = await startAgent({ registry: registry.url }, { registry: knows });
  const [layer] = image.platforms[0]?.layers ?? [];
  assert.ok(layer !== undefined);
  const blob = `/v2/dockerhub/library/demo/blobs/${layer.digest}`;
  assert.equal((await fetch(`${agent.url}/v2/dockerhub/library/demo/manifests/1`)).status, 200);
  const fromS3 = (): Promise<number> => metric(agent.admin, 'agent_received_bytes_total', 's3');

  await until(async () => {
    assert.equal((await readBlob(agent.url + blob)).digest, layer.digest);
    return (await fromS3()) === layer.size;
  }, 'the layer is in S3, and the agent reads it from there');

  const plain = await fetch(registry.url + blob, { redirect: 'manual' });
  assert.equal(plain.status, 200);
  await plain.body?.cancel();
  const part = await fetch(agent.url + blob, { headers: { range: 'bytes=10-19' } });
  assert.deepEqual([part.status, Buffer.from(await part.arrayBuffer())], [206, layer.bytes.subarray(10, 20)]);
  assert.equal(await fromS3(), layer.size, 'a part cannot be verified');

  // Nodes cannot reach S3, but the registry can: its own way is not through `front`.
  await network.disposeAsync();
  for (let count = 0; count < 2; count++) assert.equal((await readBlob(agent.url + blob)).digest, layer.digest);
  assert.equal(await fromS3(), layer.size);
  assert.equal(await metric(agent.admin, 'agent_places_left_total', 's3'), 1, 'S3 is not tried again for a while');
});
