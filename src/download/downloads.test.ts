import assert from 'node:assert/strict';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { captureLog } from '../../test/support/log.ts';
import { temporaryDirectory } from '../../test/support/temporary.ts';
import { digestOf } from '../oci/digest.ts';
import { readAll } from '../io/body.ts';
import { parseRepository } from '../oci/reference.ts';
import { createDownloads } from './downloads.ts';

const BYTES = Buffer.alloc(300_000, 1);
const DIGEST = digestOf(BYTES);
const { signal } = new AbortController();

test('a spool file that cannot be removed is logged, and the next download runs', async () => {
  await using directory = await temporaryDirectory();
  const captured = await captureLog();
  let ended = 0;
  const downloads = await createDownloads({
    spoolDirectory: directory.path,
    keeper: {
      reserve: () => ({ grow: () => true, release: () => undefined }),
      parts: undefined,
      async keep() {
        for (const name of await readdir(directory.path)) {
          await rm(join(directory.path, name), { recursive: true });
          await mkdir(join(directory.path, name)); // `rm` without `recursive` fails there
        }
        throw new Error('not kept');
      },
    },
    log: captured.log,
    metrics: { downloadStarted: () => undefined, downloadEnded: () => void ended++ },
    maxDownloads: 1,
  });
  async function* body() {
    yield await Promise.resolve(BYTES);
  }
  for (let count = 1; count <= 2; count++) {
    const blob = { digest: DIGEST, size: BYTES.length, range: undefined };
    const download = downloads.start(DIGEST, {
      sources: [{ name: 'upstream', open: () => Promise.resolve({ ...blob, body: body() }) }],
      repository: parseRepository('hub/library/demo'),
      upstream: 'hub',
      connections: 1,
      expectedSize: undefined,
      start: 0,
      isLastResort: false,
      continues: true,
    });
    const read = (await download.read(undefined, signal)) ?? assert.fail();
    assert.deepEqual(await readAll(read.body, BYTES.length), BYTES);
    await downloads.close(signal);
    await new Promise(setImmediate);
    assert.equal(ended, count);
  }
  const told = () => captured.entries().filter(({ msg }) => String(msg).startsWith('cannot remove a spool file')).length;
  for (let tries = 0; told() < 2 && tries < 100; tries++) await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(told(), 2);
});
