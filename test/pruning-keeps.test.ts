import assert from 'node:assert/strict';
import { utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { BLOB_MEDIA_TYPE, OCI_INDEX, OCI_MANIFEST } from '../src/oci/descriptor.ts';
import { digestOf, type Digest } from '../src/oci/digest.ts';
import { parseRepository, parseTag, type Repository, type Tag } from '../src/oci/reference.ts';
import { createClaimer } from '../src/store/claims.ts';
import { filesystem, type FilesystemStore } from '../src/store/filesystem/filesystem.ts';
import { blobKey, memberKey, tagKey } from '../src/store/keys.ts';
import { bytesSource } from '../src/store/store.ts';
import { keysOf } from '../src/testing/store-suite.ts';
import { createKeep } from '../src/upkeep/keep.ts';
import { prune } from '../src/upkeep/prune.ts';
import { temporaryDirectory } from './support/temporary.ts';

/** How many random prunings: KUBE_REGISTRY_RUNS=10000 for a night. */
const RUNS = Number(process.env['KUBE_REGISTRY_RUNS'] ?? 25);
const DAY = 86_400_000;
const context = { signal: new AbortController().signal };

/** An image of the model: its name, and the digests that a pull of it needs. */
interface Model {
  repository: Repository;
  tag: Tag;
  digest: Digest;
  needs: Digest[];
}

async function store(files: FilesystemStore, content: string | Buffer): Promise<{ digest: Digest; size: number }> {
  const bytes = Buffer.from(content);
  const digest = digestOf(bytes);
  await files.write(blobKey(digest), bytesSource(bytes), context);
  return { digest, size: bytes.length };
}

async function storeImage(files: FilesystemStore, name: string, layers: readonly number[], isIndex: boolean): Promise<Model> {
  const own = { repository: parseRepository(name), tag: parseTag('1') };
  const record = (digest: Digest, mediaType: string) =>
    files.write(memberKey(own.repository, digest), bytesSource(Buffer.from(JSON.stringify({ mediaType, size: 1 }))), context);
  const config = { ...(await store(files, `config of ${name}`)), mediaType: BLOB_MEDIA_TYPE };
  const blobs = await Promise.all(layers.map(async (layer) => ({ ...(await store(files, `layer ${layer}`)), mediaType: BLOB_MEDIA_TYPE })));
  const manifest = JSON.stringify({ schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: blobs, name });
  let root = await store(files, manifest);
  await record(root.digest, OCI_MANIFEST);
  const needs = [root, config, ...blobs].map(({ digest }) => digest);
  if (isIndex) {
    root = await store(
      files,
      JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [{ ...root, mediaType: OCI_MANIFEST }] }),
    );
    await record(root.digest, OCI_INDEX);
    needs.push(root.digest);
  }
  for (const { digest } of [config, ...blobs]) await record(digest, BLOB_MEDIA_TYPE);
  await files.write(tagKey(own.repository, own.tag), bytesSource(Buffer.from(JSON.stringify({ digest: root.digest }))), context);
  return { ...own, digest: root.digest, needs };
}

test(`nothing that is pinned, in use or claimed is missing after ${RUNS} random prunings over a directory`, async () => {
  const image = fc.record({ layers: fc.uniqueArray(fc.nat(6), { maxLength: 4 }), isIndex: fc.boolean(), fate: fc.nat(4), age: fc.nat(60) });
  await fc.assert(
    fc.asyncProperty(fc.array(image, { minLength: 1, maxLength: 8 }), fc.nat(20), async (images, maxAge) => {
      await using temporary = await temporaryDirectory();
      const files = await filesystem({ directory: temporary.path });
      const models = await Promise.all(images.map(({ layers, isIndex }, n) => storeImage(files, `hub/image-${n}`, layers, isIndex)));
      for (const key of await keysOf(files, '')) {
        const age = images[Number(/image-(\d+)/.exec(key)?.[1] ?? 0)]?.age ?? 0;
        const then = new Date(Date.now() - (age + 2) * DAY);
        await utimes(join(files.directory, key), then, then);
      }
      const withFate = (fate: number) => models.filter((_, n) => images[n]?.fate === fate);
      const [pinned, byTag, byDigest, claimed] = [withFate(0), withFate(1), withFate(2), withFate(3)];
      const keep = createKeep({
        hosted: [],
        namesOf: () => [],
        pins: new Set<string>(),
        pinned: pinned.map((one) => `${one.repository}:1`),
        inUse: [
          ...byTag.map((one) => ({ repository: one.repository, reference: one.tag })),
          ...byDigest.map((one) => ({ repository: one.repository, reference: one.digest })),
        ],
      });
      for (const one of claimed) await createClaimer(files).claim(one.needs, context.signal);
      await prune(files, {
        ...context,
        limits: () => Promise.resolve({ now: Date.now(), grace: DAY, maxSize: 1, maxAge: (maxAge + 1) * DAY }),
        keep: () => Promise.resolve(keep),
      });
      for (const one of [...pinned, ...byTag, ...byDigest, ...claimed]) {
        for (const digest of one.needs) assert.ok(await files.stat(blobKey(digest), context), `${one.repository} lacks ${digest}`);
      }
      for (const one of [...pinned, ...byTag, ...byDigest]) {
        assert.ok(await files.stat(tagKey(one.repository, one.tag), context), `${one.repository} lacks its tag`);
      }
      await files.close();
    }),
    { numRuns: RUNS },
  );
});
