import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { captureLog } from '../../test/support/log.ts';
import { temporaryDirectory } from '../../test/support/temporary.ts';
import { OCI_INDEX, OCI_MANIFEST } from '../oci/descriptor.ts';
import { digestOf, type Digest } from '../oci/digest.ts';
import type { PushRegistry } from '../oci/push-registry.ts';
import { parseRepository, parseTag, type Reference } from '../oci/reference.ts';
import { filesystemUploads } from '../store/filesystem/filesystem-uploads.ts';
import { filesystem } from '../store/filesystem/filesystem.ts';
import { hosted } from './hosted.ts';
import { noQuota } from './quota.ts';
import { applyRetention, type RetentionRules } from './retention.ts';

const signal = new AbortController().signal;
const REPOSITORY = parseRepository('team/app');

interface World {
  registry: PushRegistry;
  push(this: void, reference: string | undefined, content?: object): Promise<Digest>;
  /** @returns how many tags and manifests were deleted */
  apply(this: void, rules: Partial<RetentionRules>): Promise<number>;
  list(this: void, rules: Partial<RetentionRules>, how: { dryRun: boolean; isImmutable?: (tag: string) => boolean }): Promise<string[]>;
  has(this: void, reference: Reference): Promise<boolean>;
  tags(this: void): Promise<string[]>;
}

async function withWorld(work: (world: World) => Promise<void>): Promise<void> {
  await using temporary = await temporaryDirectory();
  const files = await filesystem({ directory: temporary.path });
  const store = filesystemUploads(files);
  const { log } = await captureLog();
  const options = { maxBlobSize: 2 ** 30, isImmutable: () => false, quota: noQuota, used: () => undefined };
  const registry = hosted({ name: 'local', store, ...options });
  let count = 0;
  await work({
    registry,
    async push(reference, content = {}) {
      const document = { schemaVersion: 2, mediaType: OCI_MANIFEST, layers: [], annotations: { n: String(count++) }, ...content };
      const bytes = Buffer.from(JSON.stringify(document));
      const digest = digestOf(bytes);
      const name = reference === undefined ? digest : parseTag(reference);
      await registry.putManifest(REPOSITORY, name, { bytes, mediaType: document.mediaType, tags: [], signal });
      return digest;
    },
    apply: async (rules) =>
      (await applyRetention({ name: 'local', registry, store, rules: { keepTags: [], ...rules }, log, signal })).length,
    list: (rules, how) => applyRetention({ name: 'local', registry, store, rules: { keepTags: [], ...rules }, ...how, log, signal }),
    has: (reference) =>
      registry.resolve(REPOSITORY, reference, { signal }).then(
        () => true,
        () => false,
      ),
    tags: async () => (await Array.fromAsync(registry.tags(REPOSITORY, { signal }))).flat(),
  });
  await files.close();
}

test('of tags that match a rule the newest stay, and tags that no rule matches all stay', () =>
  withWorld(async ({ push, apply, tags }) => {
    for (const tag of ['nightly-1', 'nightly-2', 'nightly-3', 'v1', 'v2', 'latest']) {
      await push(tag);
      await delay(20); // the order is that of the records' times
    }
    const rules = [
      { tags: 'nightly-*', newest: 2 },
      { tags: 'v*', newest: 1 },
    ];
    assert.equal(await apply({ keepTags: rules }), 2);
    assert.deepEqual(await tags(), ['latest', 'nightly-2', 'nightly-3', 'v2']);
  }));

test('untagged manifests are deleted, except those that a tagged index names and signatures of remaining images', () =>
  withWorld(async ({ push, apply, has }) => {
    const platform = await push(undefined);
    const entry = { mediaType: OCI_MANIFEST, digest: platform, size: 1 };
    const index = await push('1', { mediaType: OCI_INDEX, manifests: [entry], layers: undefined });
    const subject = { mediaType: OCI_INDEX, digest: index, size: 1 };
    const signature = await push(undefined, { subject });
    const orphan = await push(undefined);
    const orphanIndex = await push(undefined, {
      mediaType: OCI_INDEX,
      manifests: [{ ...entry, digest: orphan }],
      layers: undefined,
    });
    assert.equal(await apply({ untagged: 3_600_000 }), 0, 'nothing is old enough');
    assert.equal(await apply({ untagged: -1000 }), 2);
    for (const digest of [platform, index, signature]) assert.ok(await has(digest), digest);
    for (const digest of [orphan, orphanIndex]) assert.ok(!(await has(digest)), digest);
  }));

test('without rules nothing is deleted', () =>
  withWorld(async ({ push, apply, has }) => {
    const digest = await push(undefined);
    assert.equal(await apply({}), 0);
    assert.ok(await has(digest));
  }));

test('a dry run names what would be deleted, without immutable tags, and deletes nothing', () =>
  withWorld(async ({ push, list, tags }) => {
    const old = await push('nightly-1');
    for (const tag of ['nightly-2', 'nightly-3']) {
      await delay(20); // the order is that of the records' times
      await push(tag);
    }
    const untagged = await push(undefined);
    await delay(20);
    const rules = { untagged: 1, keepTags: [{ tags: 'nightly-*', newest: 1 }] };
    const isImmutable = (tag: string): boolean => tag === 'nightly-2';
    const would = await list(rules, { dryRun: true, isImmutable });
    assert.deepEqual(would.toSorted(), [`local/team/app:nightly-1`, ...[`local/team/app@${old}`, `local/team/app@${untagged}`].toSorted()]);
    assert.deepEqual(await tags(), ['nightly-1', 'nightly-2', 'nightly-3']);
    assert.deepEqual(await list(rules, { dryRun: false, isImmutable }), would);
    assert.deepEqual(await tags(), ['nightly-2', 'nightly-3']);
  }));
