import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runConformance } from '../../test/support/conformance.ts';
import { captureLog } from '../../test/support/log.ts';
import { OCI_MANIFEST } from '../oci/descriptor.ts';
import { createMemory } from '../testing/memory-registry.ts';
import { addSampleContent, sampleContent } from '../testing/sample-content.ts';
import { listen } from './listen.ts';
import { serveRegistry } from './serve-registry.ts';

const REPOSITORY = 'dockerhub/library/sample';

test('the conformance program of the distribution specification finds nothing wrong with what is read', async () => {
  const content = sampleContent();
  const memory = createMemory();
  addSampleContent(memory, REPOSITORY, content);
  const blobs = [memory.addBlob(REPOSITORY, Buffer.alloc(0)), memory.addBlob(REPOSITORY, Buffer.from('by sha512'), 'sha512')];
  const byLongDigest = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_MANIFEST, config: blobs[1], layers: [blobs[0]] }));
  const manifest = memory.addManifest(REPOSITORY, { mediaType: OCI_MANIFEST, bytes: byLongDigest, algorithm: 'sha512' });

  const { log } = await captureLog();
  const handler = serveRegistry(memory.registry, { log, nameOf: (first) => first, upstreamOf: () => undefined });
  await using listener = await listen({ address: { host: '127.0.0.1', port: 0 }, handler, log });
  const { pass, fail, error, skip, report } = await runConformance({
    host: `127.0.0.1:${listener.address.port}`,
    repository: REPOSITORY,
    tags: content.tags,
    manifests: [...content.manifests.map(({ descriptor }) => descriptor.digest), manifest.digest],
    blobs: [...content.blobs.map(({ descriptor }) => descriptor.digest), ...blobs.map(({ digest }) => digest)],
    subject: content.image.digest,
  });
  assert.deepEqual({ fail, error, skip }, { fail: 0, error: 0, skip: 0 }, report);
  assert.ok(pass >= 34, report);
});
