import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { sampleContent } from '../src/testing/sample-content.ts';
import { runConformance } from './support/conformance.ts';
import { startDistribution } from './support/distribution.ts';
import { content, pushBlob, pushManifest } from './support/image.ts';
import { startRegistry } from './support/program.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { startVersitygw } from './support/versitygw.ts';

const NAME = 'library/sample';

for (const kind of ['filesystem', 's3'] as const) {
  test(`every read check of the distribution specification passes on content from upstream, cold and warm, kept in ${kind}`, async (t) => {
    await using upstream = await startDistribution();
    const sample = sampleContent();
    const base = `${upstream.url}/v2/${NAME}`;
    for (const { descriptor, bytes } of sample.blobs) await pushBlob(base, content(descriptor.mediaType, Buffer.from(bytes)));
    for (const { descriptor, bytes, tags = [] } of sample.manifests) {
      for (const reference of [descriptor.digest, ...tags]) {
        await pushManifest(`${base}/manifests/${reference}`, content(descriptor.mediaType, Buffer.from(bytes)));
      }
    }
    // Distribution has no referrers API: clients of such a registry push an index under this tag.
    const referrers = JSON.stringify({
      schemaVersion: 2,
      mediaType: sample.index.mediaType,
      manifests: [{ ...sample.artifact, artifactType: sample.artifactType }],
    });
    const tag = sample.image.digest.replace(':', '-');
    await pushManifest(`${base}/manifests/${tag}`, content(sample.index.mediaType, Buffer.from(referrers)));

    await using directory = await temporaryDirectory();
    await using s3 = kind === 's3' ? await startVersitygw() : undefined;
    const { endpoint, bucket, region, accessKeyId, secretAccessKey } = s3 ?? {};
    const filesystem = { directory: join(directory.path, 'data') };
    await using registry = await startRegistry({
      storage: s3 === undefined ? { filesystem } : { s3: { endpoint, bucket, region, accessKeyId, secretAccessKey } },
      local: { directory: join(directory.path, 'local') },
      upstreams: { dockerhub: { url: upstream.url } },
    });
    for (const round of ['cold', 'warm']) {
      const { pass, fail, error, skip, report } = await runConformance({
        host: registry.host,
        repository: `dockerhub/${NAME}`,
        tags: sample.tags,
        manifests: sample.manifests.map(({ descriptor }) => descriptor.digest),
        blobs: sample.blobs.map(({ descriptor }) => descriptor.digest),
        subject: sample.image.digest,
      });
      t.diagnostic(`${round}: ${pass} checks passed, ${fail + error} failed, ${skip} skipped`);
      assert.deepEqual({ fail, error, skip }, { fail: 0, error: 0, skip: 0 }, report);
      assert.ok(pass >= 28, report);
    }
  });
}
