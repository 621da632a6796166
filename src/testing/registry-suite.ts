import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { digestOf } from '../oci/digest.ts';
import { isAbsent, isOciError } from '../oci/error.ts';
import type { RangeRequest } from '../oci/range.ts';
import { parseRepository, parseTag, type Repository } from '../oci/reference.ts';
import type { Blob, Registry } from '../oci/registry.ts';
import { sampleContent, type SampleContent } from './sample-content.ts';

export interface RegistryUnderTest extends AsyncDisposable {
  registry: Registry;
  /** Holds the sample content. */
  repository: Repository;
}

export interface ConformanceOptions {
  /** False where no source of the registry supports referrers. */
  referrers?: boolean;
}

type Check = (promise: string, body: (own: RegistryUnderTest, signal: AbortSignal) => Promise<void>) => void;

const ABSENT_DIGEST = digestOf(Buffer.from('absent everywhere'));

/** The behaviour that every Registry promises, tested over one that `make` has filled with the
 *  content. */
export function testRegistry(
  name: string,
  make: (content: SampleContent) => Promise<RegistryUnderTest>,
  options: ConformanceOptions = {},
): void {
  const content = sampleContent();
  const check: Check = (promise, body) => {
    void test(promise, async () => {
      await using own = await make(content);
      await body(own, AbortSignal.timeout(60_000));
    });
  };
  void describe(name, () => {
    testManifests(check, content);
    testBlobs(check, content);
    testRanges(check, content);
    testReaders(check, content);
    testLists(check, content, options);
  });
}

function testManifests(check: Check, { manifests, index }: SampleContent): void {
  check('gives every manifest by digest and by tag, verbatim, with its media type', async ({ registry, repository }, signal) => {
    for (const { descriptor, bytes, tags = [] } of manifests) {
      for (const reference of [descriptor.digest, ...tags.map((tag) => parseTag(tag))]) {
        assert.deepEqual(await registry.resolve(repository, reference, { signal }), descriptor, `resolve ${reference}`);
        const manifest = await registry.manifest(repository, reference, { signal });
        assert.deepEqual(manifest.descriptor, descriptor, `manifest ${reference}`);
        assert.deepEqual(Buffer.from(manifest.bytes), Buffer.from(bytes), `bytes of ${reference}`);
        assert.equal(manifest.stale, false);
      }
    }
  });

  check('says of a tag, digest or repository that is not there that it is absent', async ({ registry, repository }, signal) => {
    const elsewhere = parseRepository(`${repository}/absent`);
    for (const [where, reference] of [
      [repository, parseTag('absent')],
      [repository, ABSENT_DIGEST],
      [elsewhere, parseTag('latest')],
      [elsewhere, index.digest],
    ] as const) {
      await assert.rejects(registry.resolve(where, reference, { signal }), isAbsent, `resolve ${where} ${reference}`);
      await assert.rejects(registry.manifest(where, reference, { signal }), isAbsent, `manifest ${where} ${reference}`);
    }
  });

  check('ends a call whose signal is aborted', async ({ registry, repository }) => {
    const signal = AbortSignal.abort();
    await assert.rejects(registry.resolve(repository, parseTag('latest'), { signal }));
    await assert.rejects(registry.manifest(repository, parseTag('latest'), { signal }));
  });
}

function testBlobs(check: Check, { blobs, layer }: SampleContent): void {
  check('gives every blob whole, and its size beforehand', async ({ registry, repository }, signal) => {
    for (const { descriptor, bytes } of blobs) {
      const { digest, size } = descriptor;
      const stat = await registry.stat(repository, digest, { signal });
      assert.deepEqual({ digest: stat.digest, size: stat.size }, { digest, size });
      const blob = await registry.blob(repository, digest, { signal });
      assert.equal(blob.range, undefined);
      assert.equal(blob.size ?? size, size);
      assert.equal(digestOf(await collect(blob)), digestOf(bytes));
    }
  });

  check('says of a blob that is not there that it is absent', async ({ registry, repository }, signal) => {
    const elsewhere = parseRepository(`${repository}/absent`);
    for (const [where, digest] of [
      [repository, ABSENT_DIGEST],
      [elsewhere, layer.descriptor.digest],
    ] as const) {
      await assert.rejects(registry.stat(where, digest, { signal }), isAbsent, `stat ${where} ${digest}`);
      await assert.rejects(async () => collect(await registry.blob(where, digest, { signal })), isAbsent, `blob ${where} ${digest}`);
    }
  });
}

function testRanges(check: Check, { layer }: SampleContent): void {
  const { digest, size } = layer.descriptor;
  const end = size - 1;
  const inside: [RangeRequest, number, number][] = [
    [{ start: 0, end: 0 }, 0, 0],
    [{ start: 0, end }, 0, end],
    [{ start: 65_535, end: 65_537 }, 65_535, 65_537],
    [{ start: 1_048_575 }, 1_048_575, end],
    [{ start: end }, end, end],
    [{ start: 100, end: end + 1_000 }, 100, end],
    [{ suffix: 1 }, end, end],
    [{ suffix: 100_000 }, end - 99_999, end],
    [{ suffix: end + 1_000 }, 0, end],
  ];
  check('gives ranges of a blob, or the whole of it', async ({ registry, repository }, signal) => {
    for (const [range, first, last] of inside) {
      const blob = await registry.blob(repository, digest, { signal, range });
      if (blob.range !== undefined) assert.deepEqual({ ...blob.range }, { start: first, end: last });
      const expected = blob.range === undefined ? layer.bytes : layer.bytes.subarray(first, last + 1);
      assert.equal(digestOf(await collect(blob)), digestOf(expected), JSON.stringify(range));
    }
  });

  check('refuses a range that lies outside, and says how large the blob is', async ({ registry, repository }, signal) => {
    for (const range of [{ start: size }, { start: size + 5, end: size + 9 }]) {
      await assert.rejects(
        async () => collect(await registry.blob(repository, digest, { signal, range })),
        (error) => isOciError(error, 'RANGE_INVALID') && error.size === size,
        JSON.stringify(range),
      );
    }
  });
}

function testReaders(check: Check, { layer }: SampleContent): void {
  const { digest } = layer.descriptor;

  check('lets a reader leave in the middle, and serves the next one', async ({ registry, repository }, signal) => {
    const blob = await registry.blob(repository, digest, { signal });
    for await (const chunk of blob.body) {
      assert.ok(chunk.length > 0);
      break;
    }
    assert.equal(digestOf(await collect(await registry.blob(repository, digest, { signal }))), digest);
  });

  check('ends a body whose signal is aborted, and serves the next reader', async ({ registry, repository }, signal) => {
    const controller = new AbortController();
    await assert.rejects(async () => {
      const blob = await registry.blob(repository, digest, { signal: controller.signal });
      for await (const chunk of blob.body) if (chunk.length > 0) controller.abort();
      controller.signal.throwIfAborted(); // its chunks may be so large that all had been given by then
    });
    assert.equal(digestOf(await collect(await registry.blob(repository, digest, { signal }))), digest);
  });

  check('serves eight readers of one blob at once', async ({ registry, repository }, signal) => {
    const readers = Array.from({ length: 8 }, async () => digestOf(await collect(await registry.blob(repository, digest, { signal }))));
    assert.deepEqual(new Set(await Promise.all(readers)), new Set([digest]));
  });
}

function testLists(check: Check, content: SampleContent, { referrers = true }: ConformanceOptions): void {
  const { image, artifact, artifactType, tags } = content;

  check('lists the tags, and those after one', async ({ registry, repository }, signal) => {
    assert.deepEqual((await Array.fromAsync(registry.tags(repository, { signal }))).flat(), tags);
    for (const last of tags) {
      const after = tags.filter((tag) => tag > last);
      assert.deepEqual((await Array.fromAsync(registry.tags(repository, { signal, last: parseTag(last) }))).flat(), after);
    }
    await assert.rejects(Array.fromAsync(registry.tags(parseRepository(`${repository}/absent`), { signal })), isAbsent);
  });

  check('gives an empty index where nothing refers to a digest', async ({ registry, repository }, signal) => {
    const { index } = await registry.referrers(repository, artifact.digest, { signal });
    assert.deepEqual(manifestsOf(index), []);
  });

  if (!referrers) return;
  check('lists the referrers of a digest, all of them or of one type', async ({ registry, repository }, signal) => {
    const all = await registry.referrers(repository, image.digest, { signal });
    assert.deepEqual(manifestsOf(all.index), [artifact.digest]);
    const own = await registry.referrers(repository, image.digest, { signal, artifactType });
    assert.deepEqual(manifestsOf(own.index), [artifact.digest]);
    const other = await registry.referrers(repository, image.digest, { signal, artifactType: 'application/vnd.example.other' });
    if (other.filtersApplied) assert.deepEqual(manifestsOf(other.index), []);
  });
}

/** The digests that an index lists. */
function manifestsOf(index: Uint8Array): string[] {
  const document = JSON.parse(Buffer.from(index).toString('utf8')) as { schemaVersion: number; manifests: { digest: string }[] };
  assert.equal(document.schemaVersion, 2);
  return document.manifests.map(({ digest }) => digest);
}

/** Uses the minimum that the chunk contract guarantees: a chunk is copied only after the next one
 *  has been requested. */
async function collect(blob: Blob): Promise<Uint8Array> {
  const iterator = blob.body[Symbol.asyncIterator]();
  const copies: Uint8Array[] = [];
  let before: Uint8Array | undefined;
  for (;;) {
    const { value, done } = await iterator.next();
    if (before !== undefined) copies.push(Buffer.from(before));
    if (done === true) return Buffer.concat(copies);
    before = value;
  }
}
