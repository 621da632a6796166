import assert from 'node:assert/strict';
import { test } from 'node:test';
import { captureLog } from '../../test/support/log.ts';
import { startProcess } from '../../test/support/process.ts';
import { temporaryDirectory } from '../../test/support/temporary.ts';
import { toolPath } from '../../test/tools/tools.ts';
import { OCI_MANIFEST } from '../oci/descriptor.ts';
import { createMemory } from '../registry/memory.ts';
import { addSampleContent, sampleContent } from '../registry/sample-content.ts';
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
  const handler = serveRegistry(memory.registry, { log, upstreams: ['dockerhub'], upstreamOf: () => undefined });
  await using listener = await listen({ address: { host: '127.0.0.1', port: 0 }, handler, log });
  await using folder = await temporaryDirectory();
  const program = await startProcess({
    command: await toolPath('conformance'),
    cwd: folder.path,
    env: {
      OCI_REGISTRY: `127.0.0.1:${listener.address.port}`,
      OCI_TLS: 'disabled',
      OCI_REPO1: REPOSITORY,
      OCI_RESULTS_DIR: folder.path,
      OCI_API_PUSH: 'false',
      OCI_API_BLOBS_DELETE: 'false',
      OCI_API_MANIFESTS_DELETE: 'false',
      OCI_API_TAGS_DELETE: 'false',
      OCI_RO_DATA_TAGS: content.tags.join(' '),
      OCI_RO_DATA_MANIFESTS: [...content.manifests.map(({ descriptor }) => descriptor.digest), manifest.digest].join(' '),
      OCI_RO_DATA_BLOBS: [...content.blobs.map(({ descriptor }) => descriptor.digest), ...blobs.map(({ digest }) => digest)].join(' '),
      OCI_RO_DATA_REFERRERS: content.image.digest,
    },
  });
  await program.exited;
  // Its exit code says nothing: of data that it did not push itself, it cannot write its results file and panics there.
  const report = program.output();
  const count = (result: string) => Number(new RegExp(`^  ${result}\\.+: +(\\d+)$`, 'm').exec(report)?.[1]);
  assert.deepEqual([count('FAIL'), count('Error'), count('Skip')], [0, 0, 0], report);
  assert.ok(count('Pass') >= 34, report);
});
