import assert from 'node:assert/strict';
import { test } from 'node:test';
import { until } from '../../test/support/until.ts';
import { discardBody } from '../io/body.ts';
import { OCI_MANIFEST } from '../oci/descriptor.ts';
import { isOciError, OciError } from '../oci/error.ts';
import { parseRepository, parseTag } from '../oci/reference.ts';
import type { Registry } from '../oci/registry.ts';
import { createMemory } from '../testing/memory-registry.ts';
import { openCache } from '../testing/open-cache.ts';
import { addSampleContent, sampleContent } from '../testing/sample-content.ts';

const repository = parseRepository('acme/app');
const context = { signal: new AbortController().signal };

/** Claims to have all requested content, and sends only a manifest that names the content of
 *  `honest`. */
function liar(honest: Registry, manifest: Uint8Array): Registry {
  const memory = createMemory();
  memory.addManifest(repository, { mediaType: OCI_MANIFEST, bytes: manifest, tags: ['bait'] });
  return {
    ...memory.registry,
    resolve: (asked, reference, own) =>
      memory.registry.resolve(asked, reference, own).catch(() => honest.resolve(repository, reference, own)),
    stat: (_, digest, own) => honest.stat(repository, digest, own),
    blob: () => Promise.reject(new OciError('BLOB_UNKNOWN', 'it has none')),
  };
}

for (const untrusted of [true, false]) {
  test(`promise 12: a host that anybody may run ${untrusted ? 'cannot get stored blobs by claiming to have them' : '(one that is trusted is believed)'}`, async () => {
    await using opened = await openCache();

    const content = sampleContent();
    const memory = createMemory();
    addSampleContent(memory, repository, content);
    const honest = opened.serve('corp', memory.registry);
    const manifest = await honest.manifest(repository, content.image.digest, context);
    const { layer } = content;
    await readAll(await honest.blob(repository, layer.descriptor.digest, context));

    const bait = Buffer.from(`${JSON.stringify(JSON.parse(Buffer.from(manifest.bytes).toString()))} `);
    const upstream = liar(memory.registry, bait);
    const other = opened.serve('liar.example', upstream, { untrusted });
    assert.equal((await other.resolve(repository, parseTag('1.0'), context)).digest, content.image.digest, 'it is asked');
    await other.manifest(repository, parseTag('bait'), context);
    await other.stat(repository, layer.descriptor.digest, context);
    const blob = await other.blob(repository, layer.descriptor.digest, context).catch((error: unknown) => error);
    if (!(blob instanceof Error)) await discardBody((blob as { body: AsyncIterable<Uint8Array> }).body);
    const copied = await other.manifest(repository, content.image.digest, context).catch((error: unknown) => error);
    if (untrusted) {
      assert.ok(isOciError(blob, 'BLOB_UNKNOWN', 'UNAVAILABLE'), String(blob));
      assert.ok(isOciError(copied, 'MANIFEST_UNKNOWN', 'UNAVAILABLE'), String(copied));
    } else {
      assert.ok(!(blob instanceof Error) && !(copied instanceof Error));
    }
  });
}

async function readAll({ body }: { body: AsyncIterable<Uint8Array> }): Promise<void> {
  for await (const chunk of body) assert.ok(chunk.length > 0);
}

test('promise 12: a host that anybody may run gets nothing from an unfinished download of another upstream', async () => {
  await using opened = await openCache();

  const content = sampleContent();
  const { digest, size } = content.layer.descriptor;
  const memory = createMemory();
  addSampleContent(memory, repository, content);
  /** Its connections break after two thirds. */
  const cut: Registry = {
    ...memory.registry,
    async blob(...asked) {
      const blob = await memory.registry.blob(...asked);
      return { ...blob, body: firstBytes(blob.body, (2 * size) / 3 - (blob.range?.start ?? 0)) };
    },
  };
  const honest = opened.serve('corp', cut);
  await assert.rejects(honest.blob(repository, digest, context).then(readAll));
  await until(() => opened.cache.downloads.running(digest) === undefined, 'it has ended');

  let sent = 0;
  const forger: Registry = {
    ...memory.registry,
    async blob(_, asked, { range }) {
      const start = range !== undefined && 'start' in range ? range.start : 0;
      sent = size - start;
      const body = (async function* () {
        yield Buffer.alloc(size - start, 'x');
      })();
      return { digest: asked, size, range: start === 0 ? undefined : { start, end: size - 1 }, body };
    },
  };
  const other = opened.serve('forger.example', forger, { untrusted: true });
  const got: Buffer[] = [];
  await assert.rejects(
    other.blob(repository, digest, context).then(async ({ body }) => {
      for await (const chunk of body) got.push(Buffer.from(chunk));
    }),
  );
  assert.equal(sent, size, 'it sent every byte');
  assert.ok(
    Buffer.concat(got).every((byte) => byte === 'x'.charCodeAt(0)),
    'its own bytes',
  );
});

async function* firstBytes(body: AsyncIterable<Uint8Array>, limit: number): AsyncGenerator<Uint8Array> {
  let left = limit;
  for await (const chunk of body) {
    if (left <= 0) throw new OciError('UNAVAILABLE', 'the connection broke', { origin: 'upstream' });
    left -= chunk.length;
    yield chunk;
  }
}
