import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { CreateBucketCommand, GetObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { answersOk, startProcess } from '../test/support/process.ts';
import { freePort, temporaryDirectory } from '../test/support/temporary.ts';
import { toolPath } from '../test/tools/tools.ts';
import { find, podOf, render } from './render.ts';

test('versitygw, started as in the chart, accepts a token as its key and reports that it is healthy', async () => {
  await using temporary = await temporaryDirectory();
  const port = await freePort();
  const [data, metadata] = [join(temporary.path, 'data'), join(temporary.path, 'metadata')];
  await Promise.all([mkdir(data), mkdir(metadata)]);
  const pod = podOf(find(await render({ values: { objectStorage: { enabled: true } } }), 'Deployment', '-object-storage'));
  const [container] = pod.containers;
  assert.ok(container);
  // As long as a ServiceAccount's token is.
  const keys = {
    ROOT_ACCESS_KEY: 'images',
    ROOT_SECRET_KEY: `${randomBytes(400).toString('base64url')}.${randomBytes(256).toString('base64url')}`,
  };
  const given = Object.fromEntries((container.env ?? []).map(({ name, value }) => [name, value]));
  await using server = await startProcess({
    command: await toolPath('versitygw'),
    // A test's folder may have no extended attributes; the chart's volume has.
    args: (container.args ?? []).flatMap((word) => (word === '/data' ? ['--sidecar', metadata, data] : [word])),
    env: { PATH: '/usr/bin:/bin', ...given, ...keys, VGW_PORT: `127.0.0.1:${port}` },
    ready: () => answersOk(`http://127.0.0.1:${port}/health`),
  });
  const client = new S3Client({
    endpoint: `http://127.0.0.1:${port}`,
    region: 'us-east-1',
    forcePathStyle: true,
    credentials: { accessKeyId: keys.ROOT_ACCESS_KEY, secretAccessKey: keys.ROOT_SECRET_KEY },
  });
  const object = { Bucket: 'kube-registry', Key: 'v1/blobs/x' };
  await client.send(new CreateBucketCommand({ Bucket: object.Bucket }));
  await client.send(new PutObjectCommand({ ...object, Body: 'content' }));
  const { Body } = await client.send(new GetObjectCommand(object));
  assert.equal(await Body?.transformToString(), 'content');
  client.destroy();
  assert.ok(!server.output().includes(keys.ROOT_SECRET_KEY));
});
