import assert from 'node:assert/strict';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { captureLog } from '../../test/support/log.ts';
import { temporaryDirectory } from '../../test/support/temporary.ts';
import { digestOf } from '../oci/digest.ts';
import type { Blob } from '../oci/registry.ts';
import { parseRepository } from '../oci/reference.ts';
import { memory } from '../testing/memory-store.ts';
import { createFills } from './downloads.ts';

const BYTES = Buffer.alloc(300_000, 1);
const DIGEST = digestOf(BYTES);
const { signal } = new AbortController();

test('a spool file that cannot be removed is told to the log, and the next fill runs', async () => {
  await using directory = await temporaryDirectory();
  const captured = await captureLog();
  let ended = 0;
  const fills = await createFills({
    local: memory(),
    remote: undefined,
    spoolDirectory: directory.path,
    reserve: () => ({ grow: () => true, release: () => undefined }),
    async keep() {
      for (const name of await readdir(directory.path)) {
        await rm(join(directory.path, name), { recursive: true });
        await mkdir(join(directory.path, name)); // `rm` without `recursive` fails there
      }
      throw new Error('not kept');
    },
    log: captured.log,
    metrics: { fillStarted: () => undefined, fillEnded: () => void ended++ },
    maxFills: 1,
  });
  async function* body() {
    yield await Promise.resolve(BYTES);
  }
  for (let count = 1; count <= 2; count++) {
    const { blob } = await fills.open(DIGEST, {
      signal,
      source: () => Promise.resolve({ digest: DIGEST, size: BYTES.length, range: undefined, body: body() } satisfies Blob),
      replica: () => undefined,
      hop: false,
      connections: 1,
      upstream: 'hub',
      repository: parseRepository('hub/library/demo'),
      proof: () => Promise.resolve(),
      foresee: () => undefined,
      fetched: () => undefined,
      corrupt: () => undefined,
    });
    assert.ok(Buffer.concat(await Array.fromAsync(blob.body, (chunk) => Uint8Array.from(chunk))).equals(BYTES));
    await fills.close(signal);
    await new Promise(setImmediate);
    assert.equal(ended, count);
  }
  const told = () => captured.entries().filter(({ msg }) => String(msg).startsWith('what is left of a fill cannot be removed')).length;
  for (let tries = 0; told() < 2 && tries < 100; tries++) await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(told(), 2);
});
