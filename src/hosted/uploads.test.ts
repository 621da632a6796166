import assert from 'node:assert/strict';
import { test } from 'node:test';
import { temporaryDirectory } from '../../test/support/temporary.ts';
import { digestOf } from '../oci/digest.ts';
import { isOciError } from '../oci/error.ts';
import { parseRepository } from '../oci/reference.ts';
import { filesystemUploads } from '../store/filesystem/filesystem-uploads.ts';
import { filesystem } from '../store/filesystem/filesystem.ts';
import { createClaimer } from '../store/claims.ts';
import { blobKey, UPLOADS } from '../store/keys.ts';
import { readAll } from '../io/body.ts';
import { createRunningHash } from '../io/running-hash.ts';
import { UNLIMITED } from './quota.ts';
import { createUploads } from './uploads.ts';

const signal = new AbortController().signal;
const REPOSITORY = parseRepository('local/team/app');

/** A body that ends when the test says so; `begun`: its reader knows where it is to be stored. */
function heldBody(bytes: Buffer) {
  const begun = Promise.withResolvers<void>();
  const { promise, resolve } = Promise.withResolvers<void>();
  async function* body() {
    begun.resolve();
    yield [bytes];
    await promise;
  }
  return { chunk: { start: undefined, length: bytes.length, body: body() }, begun: begun.promise, release: resolve };
}

test('of two concurrent chunks for the same position, on one replica or on two, at most one is accepted, and the blob matches its digest', async () => {
  for (const replicas of [1, 2]) {
    for (const order of ['good first', 'evil first']) {
      await using temporary = await temporaryDirectory();
      const files = await filesystem({ directory: temporary.path });
      const store = filesystemUploads(files);
      const one = createUploads({ store, claimer: createClaimer(store), maxBlobSize: 2 ** 20 });
      const two = replicas === 1 ? one : createUploads({ store, claimer: createClaimer(store), maxBlobSize: 2 ** 20 });
      const [good, evil] = [Buffer.from('good bytes'), Buffer.from('evil bytes')];
      const digest = digestOf(good);
      const place = { repository: REPOSITORY, id: await one.start(REPOSITORY, signal) };
      const context = { room: UNLIMITED, signal };
      const [first, second] = [heldBody(good), heldBody(evil)];
      const takings = [one.append(place, first.chunk, context), two.append(place, second.chunk, context)].map((taking) =>
        taking.then(
          () => 'taken',
          (error: unknown) => (isOciError(error, 'RANGE_INVALID') ? 'refused' : Promise.reject(error as Error)),
        ),
      );
      await Promise.all([first.begun, second.begun]);
      const [sooner, later] = order === 'good first' ? [0, 1] : [1, 0];
      [first, second][sooner]?.release();
      assert.equal(await takings[sooner], 'taken');
      [first, second][later]?.release();
      assert.equal(await takings[later], 'refused');
      const verified = await one.verify(place, digest, signal).catch((error: unknown) => {
        if (!isOciError(error, 'DIGEST_INVALID')) throw error;
        return undefined;
      });
      assert.equal(verified !== undefined, order === 'good first', order);
      if (verified !== undefined) {
        await one.store(verified, digest, { record: Promise.resolve(undefined), signal });
        const found = await store.read(blobKey(digest), { signal });
        assert.ok(found);
        assert.deepEqual(await readAll(found.body, 100), good);
      }
      await one.remove(place, signal);
      assert.deepEqual(await Array.fromAsync(store.list(UPLOADS, { signal })), []);
      await files.close();
    }
  }
});

test('an upload that an older program began is ended by this one', async () => {
  await using temporary = await temporaryDirectory();
  const files = await filesystem({ directory: temporary.path });
  const store = filesystemUploads(files);
  const uploads = createUploads({ store, claimer: createClaimer(store), maxBlobSize: 2 ** 20 });
  const place = { repository: REPOSITORY, id: await uploads.start(REPOSITORY, signal) };
  const oneChunk = async function* (text: string) {
    yield [Buffer.from(text)];
  };
  await store.writeStream(`${UPLOADS}${REPOSITORY}/_${place.id}/0000000000000000`, oneChunk('before '), {
    signal,
    hash: createRunningHash('sha256'),
  });
  const chunk = { start: 7, length: 5, body: oneChunk('after') };
  assert.equal(await uploads.append(place, chunk, { room: UNLIMITED, signal }), 12);
  assert.equal((await uploads.verify(place, digestOf(Buffer.from('before after')), signal)).size, 12);
  await files.close();
});
