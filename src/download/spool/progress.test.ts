import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { temporaryDirectory } from '../../../test/support/temporary.ts';
import { until } from '../../../test/support/until.ts';
import { digestOf } from '../../oci/digest.ts';
import { createByteRanges } from './byte-ranges.ts';
import { createSpoolProgress, readSpoolProgress, type SpoolContent } from './progress.ts';

const MiB = 2 ** 20;
const SIZE = 64 * MiB;
const digest = digestOf(Buffer.from('blob'));
const content: SpoolContent = {
  digest,
  size: 100,
  ranges: [
    [0, 10],
    [20, 100],
  ],
};

test('promise 20: what a spool file holds is recorded every few megabytes, a few times a second, and at the end', async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, 'a.progress');
  const progress = createSpoolProgress(path, digest);
  const have = createByteRanges();
  have.add(0, 1000);
  progress.written(1000, 2 ** 30, have);
  assert.equal(await readSpoolProgress(path), undefined);
  have.add(0, 2 ** 22);
  progress.written(2 ** 22, 2 ** 30, have);
  const last: SpoolContent = { digest, size: 2 ** 30, ranges: [[0, 2 ** 22]] };
  await progress.finish(last);
  assert.deepEqual(await readSpoolProgress(path), last);
  await progress.remove();
  assert.equal(await readSpoolProgress(path), undefined);
});

test('promise 20: a record that is truncated, damaged, impossible or from another boot of the machine is not used', async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, 'a.progress');
  await createSpoolProgress(path, digest).finish(content);
  assert.deepEqual(await readSpoolProgress(path), content);
  const text = await readFile(path, 'utf8');
  const record = JSON.parse(text) as Record<string, unknown>;
  const wrong = [
    text.slice(0, -5),
    '',
    'null',
    '[]',
    ...[
      { boot: 'another' },
      { digest: 'sha256:0' },
      { digest: 1 },
      { size: -1 },
      { size: 50 },
      { size: 1.5 },
      { ranges: 'all' },
      { ranges: [[0, 10], 20] },
      { ranges: [[10, 0]] },
      {
        ranges: [
          [0, 30],
          [20, 40],
        ],
      },
      { ranges: [[0, 10.5]] },
      { ranges: [[-5, 10]] },
    ].map((change) => JSON.stringify({ ...record, ...change })),
  ];
  for (const line of wrong) {
    await writeFile(path, line);
    assert.equal(await readSpoolProgress(path), undefined, line);
  }
});

test('promise 20: bytes that arrive quickly, and after which nothing follows, are recorded', async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, 'blob.progress');
  const progress = createSpoolProgress(path, digest);
  const have = createByteRanges();
  for (let at = 0; at < SIZE / 2; at += MiB) {
    have.add(at, at + MiB);
    progress.written(MiB, SIZE, have);
  }
  await until(async () => {
    const { ranges = [] } = (await readSpoolProgress(path)) ?? {};
    return ranges[0]?.[1] === SIZE / 2;
  }, 'all of them are recorded');
});

test('nothing is recorded after a record has been removed', async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, 'blob.progress');
  const progress = createSpoolProgress(path, digest);
  const have = createByteRanges();
  have.add(0, SIZE / 2);
  progress.written(SIZE / 2, SIZE, have);
  await progress.remove();
  await delay(500);
  assert.equal(await readSpoolProgress(path), undefined);
});
