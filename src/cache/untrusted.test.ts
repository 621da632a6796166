import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { captureLog } from '../../test/support/log.ts';
import { temporaryDirectory } from '../../test/support/temporary.ts';
import { openStorage } from '../commands/wiring/storage.ts';
import { parseConfig } from '../config/load.ts';
import { discardBody } from '../io/body.ts';
import { OCI_MANIFEST } from '../oci/descriptor.ts';
import { isOciError, OciError } from '../oci/error.ts';
import { parseRepository, parseTag } from '../oci/reference.ts';
import type { Registry } from '../oci/registry.ts';
import { noPeers } from '../peers/peers.ts';
import { noRegistryMetrics } from '../telemetry/registry-metrics.ts';
import { createMemory } from '../testing/memory-registry.ts';
import { addSampleContent, sampleContent } from '../testing/sample-content.ts';
import { unlimited } from '../upstream/rate-limit.ts';
import { createCache } from './cache.ts';
import { cached } from './cached.ts';

const repository = parseRepository('acme/app');
const context = { signal: new AbortController().signal };

/** Says that it has whatever it is asked for, and sends only a manifest that names what `honest` has. */
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
  test(`promise 12: a host that anybody may run ${untrusted ? 'gets nothing by saying that it has it' : '(one that is trusted is believed)'}`, async () => {
    await using stack = new AsyncDisposableStack();
    const { path } = stack.use(await temporaryDirectory());
    const { registry: config } = parseConfig({
      registry: { storage: { filesystem: { directory: path } }, local: { directory: join(path, 'local') } },
    });
    const { log } = await captureLog();
    const storage = await openStorage(config, { log, metrics: noRegistryMetrics });
    const cache = await createCache({ storage, spoolDirectory: storage.spoolDirectory, peers: noPeers, metrics: noRegistryMetrics, log });
    const policy = { tagTtl: 60_000, staleFor: 60_000, negativeTtl: 0, connections: 1, onDeleted: 'forget', rateLimit: unlimited } as const;
    const credentialed = () => false;

    const content = sampleContent();
    const memory = createMemory();
    addSampleContent(memory, repository, content);
    const honest = cached({ registry: memory.registry, origin: memory.registry }, cache, { ...policy, name: 'corp', credentialed });
    const manifest = await honest.manifest(repository, content.image.digest, context);
    const { layer } = content;
    await readAll(await honest.blob(repository, layer.descriptor.digest, context));

    const bait = Buffer.from(`${JSON.stringify(JSON.parse(Buffer.from(manifest.bytes).toString()))} `);
    const upstream = liar(memory.registry, bait);
    const other = cached({ registry: upstream, origin: upstream }, cache, { ...policy, name: 'liar.example', credentialed, untrusted });
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
    await cache.downloads.close(AbortSignal.timeout(10_000));
    await cache.records.flush(AbortSignal.timeout(10_000));
    await storage.close(AbortSignal.timeout(10_000));
  });
}

async function readAll({ body }: { body: AsyncIterable<Uint8Array> }): Promise<void> {
  for await (const chunk of body) assert.ok(chunk.length > 0);
}
