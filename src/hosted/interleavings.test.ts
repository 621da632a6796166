import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createChance, type Chance } from '../../test/support/chance.ts';
import { temporaryDirectory } from '../../test/support/temporary.ts';
import { BLOB_MEDIA_TYPE, OCI_INDEX, OCI_MANIFEST } from '../oci/descriptor.ts';
import { digestOf, type Digest } from '../oci/digest.ts';
import { isOciError } from '../oci/error.ts';
import type { PushRegistry } from '../oci/push-registry.ts';
import { parseRepository } from '../oci/reference.ts';
import { filesystemUploads } from '../store/filesystem/filesystem-uploads.ts';
import { filesystem } from '../store/filesystem/filesystem.ts';
import { blobKey, SWEEPS } from '../store/keys.ts';
import type { UploadStore } from '../store/upload-store.ts';
import { prune } from '../upkeep/prune.ts';
import { hosted } from './hosted.ts';
import { parsePushedManifest } from './pushed-manifest.ts';
import { createHostedRecords } from './records.ts';
import { noQuota } from './quota.ts';

const DAY = 86_400_000;
const REPOSITORY = parseRepository('team/app');
const FULL = parseRepository('local/team/app');
const signal = new AbortController().signal;

/** Makes each call of `store` wait for a random number of turns of the event loop before and
 *  after. */
function shaken(store: UploadStore, chance: Chance): UploadStore {
  const wait = async () => {
    for (let turns = chance.happens(0.1) ? chance.below(60) : chance.below(4); turns > 0; turns--) {
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  const around =
    <Args extends unknown[], Result>(call: (this: void, ...args: Args) => Promise<Result>) =>
    async (...args: Args): Promise<Result> => {
      await wait();
      const result = await call(...args);
      await wait();
      return result;
    };
  return {
    ...store,
    stat: around((key, context) => store.stat(key, context)),
    read: around((key, context) => store.read(key, context)),
    write: around((key, source, context) => store.write(key, source, context)),
    remove: around((key, context) => store.remove(key, context)),
    writeStream: around((key, body, context) => store.writeStream(key, body, context)),
    compose: around((parts, key, context) => store.compose(parts, key, context)),
  };
}

interface World {
  store: UploadStore;
  /** Replicas that share one store. */
  registries: PushRegistry[];
  chance: Chance;
  blobs: { digest: Digest; bytes: Buffer }[];
  manifests: { digest: Digest; bytes: Buffer; mediaType: string }[];
}

function makeManifest(names: { digest: Digest; bytes: Buffer; mediaType?: string }[], note: string) {
  const entries = names.map(({ digest, bytes, mediaType = BLOB_MEDIA_TYPE }) => ({ mediaType, digest, size: bytes.length }));
  const isIndex = names.some(({ mediaType }) => mediaType !== undefined);
  const mediaType = isIndex ? OCI_INDEX : OCI_MANIFEST;
  const content = isIndex ? { manifests: entries } : { config: entries[0], layers: entries.slice(1) };
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, annotations: { note }, ...content }));
  return { digest: digestOf(bytes), bytes, mediaType };
}

function pushBlob(registry: PushRegistry, { digest, bytes }: World['blobs'][number]): Promise<unknown> {
  const body = (async function* () {
    yield [bytes];
  })();
  return registry.putBlob(REPOSITORY, digest, { chunk: { start: undefined, length: bytes.length, body }, signal });
}

function pushManifest(registry: PushRegistry, { bytes, digest, mediaType }: World['manifests'][number]): Promise<unknown> {
  return registry.putManifest(REPOSITORY, digest, { bytes, mediaType, tags: [], signal });
}

/** One step of a client, or a pruning that takes everything for two days old. */
async function act({ store, registries, chance, blobs, manifests }: World): Promise<void> {
  const registry = chance.pick(registries);
  const [blob, manifest] = [chance.pick(blobs), chance.pick(manifests)];
  switch (chance.below(6)) {
    case 0:
      return void (await pushBlob(registry, blob));
    case 1:
    case 2:
      return void (await pushManifest(registry, manifest));
    case 3:
      return registry.deleteBlob(REPOSITORY, blob.digest, { signal });
    case 4:
      return registry.deleteManifest(REPOSITORY, manifest.digest, { signal });
    default: {
      const limits = { now: Date.now() + 2 * DAY, grace: DAY, maxSize: 0, maxAge: 0 };
      await prune(store, { limits: () => Promise.resolve(limits), signal });
    }
  }
}

/** @throws AssertionError: a manifest of the repository names missing content */
async function assertWhole({ store, manifests }: World): Promise<void> {
  const records = createHostedRecords(store);
  for (const { digest, bytes, mediaType } of manifests) {
    if ((await records.content(FULL, digest, signal)) === undefined) continue;
    assert.ok(await store.stat(blobKey(digest), { signal }), 'the manifest itself');
    for (const named of parsePushedManifest(bytes, mediaType).named) {
      assert.ok(await records.content(FULL, named, signal), 'the record of its references');
      assert.ok(await store.stat(blobKey(named), { signal }), 'the bytes of the blobs that it names');
    }
  }
}

test('promise 23: concurrent pushing, deleting and pruning never leave a manifest without the content that it names', async () => {
  let accepted = 0;
  for (let seed = 1; seed <= 25; seed++) {
    const chance = createChance(seed);
    await using temporary = await temporaryDirectory();
    const files = await filesystem({ directory: temporary.path });
    const plain = filesystemUploads(files);
    const store = shaken(plain, chance);
    const options = { maxBlobSize: 2 ** 20, isImmutable: () => false, quota: noQuota, used: () => undefined };
    const registries = [1, 2].map(() => hosted({ name: 'local', store, ...options }));
    const blobs = ['one', 'two', 'three'].map((text) => ({ digest: digestOf(Buffer.from(text)), bytes: Buffer.from(text) }));
    const images = [makeManifest(blobs.slice(0, 2), 'first'), makeManifest(blobs.slice(1), 'second')];
    const manifests = [...images, makeManifest(images, 'both')];
    const world: World = { store, registries, chance, blobs, manifests };
    const [registry] = registries;
    assert.ok(registry);
    for (const blob of blobs) await pushBlob(registry, blob);
    const expected = ['DENIED', 'BLOB_UNKNOWN', 'MANIFEST_UNKNOWN', 'MANIFEST_BLOB_UNKNOWN', 'UNAVAILABLE'] as const;
    for (let round = 0; round < 3; round++) {
      await Promise.all(
        Array.from({ length: 5 }, () =>
          act(world).catch((error: unknown) => {
            if (!isOciError(error, ...expected)) throw error;
          }),
        ),
      );
      await assertWhole({ ...world, store: plain }).catch((cause: unknown) => {
        throw new Error(`seed ${seed}, round ${round}`, { cause });
      });
    }
    for (const { digest } of manifests) if ((await plain.stat(blobKey(digest), { signal })) !== undefined) accepted++;
    await files.close();
  }
  assert.ok(accepted > 10, `only ${accepted} manifests were accepted`);
});

test('promise 23: a manifest pushed after the inventory of a pruning run keeps the blobs and records that it names', async () => {
  await using temporary = await temporaryDirectory();
  const files = await filesystem({ directory: temporary.path });
  const plain = filesystemUploads(files);
  const options = { maxBlobSize: 2 ** 20, isImmutable: () => false, quota: noQuota, used: () => undefined };
  const registry = hosted({ name: 'local', store: plain, ...options });
  const blobs = ['one', 'two'].map((text) => ({ digest: digestOf(Buffer.from(text)), bytes: Buffer.from(text) }));
  const manifests = [makeManifest(blobs, 'late')];
  for (const blob of blobs) await pushBlob(registry, blob);
  let pushed = false;
  const store: UploadStore = {
    ...plain,
    async write(key, source, context) {
      if (key.startsWith(SWEEPS) && !pushed) {
        pushed = true;
        for (const manifest of manifests) await pushManifest(registry, manifest);
      }
      return plain.write(key, source, context);
    },
  };
  const limits = { now: Date.now() + 2 * DAY, grace: DAY, maxSize: 0, maxAge: 0 };
  await prune(store, { limits: () => Promise.resolve(limits), signal });
  assert.ok(pushed);
  assert.ok(await registry.resolve(REPOSITORY, manifests[0]?.digest ?? ('' as Digest), { signal }));
  await assertWhole({ store: plain, registries: [registry], chance: createChance(1), blobs, manifests });
  await files.close();
});
