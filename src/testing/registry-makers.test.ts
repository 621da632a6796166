import { join } from 'node:path';
import { captureLog } from '../../test/support/log.ts';
import { temporaryDirectory } from '../../test/support/temporary.ts';
import { startVersitygw } from '../../test/support/versitygw.ts';
import { createCache } from '../cache/cache.ts';
import { cached } from '../cache/cached.ts';
import { createImages } from '../commands/wiring/images.ts';
import { openStorage } from '../commands/wiring/storage.ts';
import { createDirectUpstreams } from '../commands/wiring/direct-upstreams.ts';
import { createUpstream } from '../commands/wiring/upstreams.ts';
import { parseConfig } from '../config/load.ts';
import type { Upstream } from '../config/schema.ts';
import { hosted } from '../hosted/hosted.ts';
import { noQuota } from '../hosted/quota.ts';
import { createTransport } from '../http/undici-transport.ts';
import { OciError } from '../oci/error.ts';
import { parseRepository, parseTag } from '../oci/reference.ts';
import type { Blob, Registry } from '../oci/registry.ts';
import { formatPlace, PLACE_HEADER } from '../nearest/agreement.ts';
import { nearest } from '../nearest/nearest.ts';
import { createPlaces } from '../nearest/places.ts';
import { createQuestions } from '../nearest/questions.ts';
import { openSharing, type Sharing } from '../nearest/sharing.ts';
import { createPeer } from '../peers/peer.ts';
import { noPeers } from '../peers/peers.ts';
import { guarded } from '../policy/guarded.ts';
import { createKnownTags } from '../policy/known-tags.ts';
import { createRules } from '../policy/rules.ts';
import { failover } from '../registry/failover.ts';
import { firstAllowed } from '../registry/first-allowed.ts';
import { lazy } from '../registry/lazy.ts';
import { observed } from '../registry/observed.ts';
import { routed } from '../registry/routed.ts';
import { listen } from '../server/listen.ts';
import { serveRegistry, type ServeOptions } from '../server/serve-registry.ts';
import { filesystemUploads } from '../store/filesystem/filesystem-uploads.ts';
import { filesystem } from '../store/filesystem/filesystem.ts';
import { noRegistryMetrics } from '../telemetry/registry-metrics.ts';
import { unlimited } from '../upstream/rate-limit.ts';
import { remote } from '../upstream/remote.ts';
import { upstream } from '../upstream/upstream.ts';
import { createMemory } from './memory-registry.ts';
import { testRegistry, type RegistryUnderTest } from './registry-suite.ts';
import { addSampleContent, type SampleContent } from './sample-content.ts';

// The suite of the Registry interface over every function that makes one. test/architecture.test.ts
// fails when one is missing.

const NAME = 'library/sample';
const repository = parseRepository(NAME);
const prefixed = parseRepository(`dockerhub/${NAME}`);

type Use = <T extends AsyncDisposable>(resource: T) => T;

/** Runs the suite over the registry that `build` returns. `use` keeps what it needs until the end
 *  of each test. */
function testMaker(name: string, where: typeof repository, build: (content: SampleContent, use: Use) => Promise<Registry>): void {
  testRegistry(name, async (content): Promise<RegistryUnderTest> => {
    await using stack = new AsyncDisposableStack();
    const registry = await build(content, (resource) => stack.use(resource));
    const owned = stack.move();
    return { registry, repository: where, [Symbol.asyncDispose]: () => owned.disposeAsync() };
  });
}

/** The sample content in memory. */
function filled(content: SampleContent, name: string = NAME): Registry {
  const memory = createMemory();
  addSampleContent(memory, name, content);
  return memory.registry;
}

/** `registry` over HTTP. @returns its URL */
async function serve(registry: Registry, use: Use, upstreams: string[] = [], options: Partial<ServeOptions> = {}): Promise<string> {
  const { log } = await captureLog();
  const handler = serveRegistry(registry, {
    log,
    nameOf: (first) => (upstreams.includes(first) ? first : undefined),
    upstreamOf: () => undefined,
    ...options,
  });
  const listener = await listen({ address: { host: '127.0.0.1', port: 0 }, handler, log });
  use({ [Symbol.asyncDispose]: () => listener.close() });
  return listener.url;
}

const transport = () => createTransport({ proxy: 'direct' });
const dead = lazy(() => Promise.reject(new OciError('UNAVAILABLE', 'it is down')));

/** `inner`, whose connection is cut in the middle of every long body. */
function cutting(inner: Registry): Registry {
  async function* half({ body, size = 0, range }: Blob): AsyncGenerator<Uint8Array> {
    const length = range === undefined ? size : range.end - range.start + 1;
    let sent = 0;
    for await (const chunk of body) {
      if (sent > length / 2) throw new OciError('UNAVAILABLE', 'the connection was cut');
      sent += chunk.length;
      yield chunk;
    }
  }
  return {
    ...inner,
    async blob(...asked) {
      const blob = await inner.blob(...asked);
      return { ...blob, body: half(blob) };
    },
  };
}

async function over(first: Registry, second: Registry, use: Use, firstIsUp = first !== dead): Promise<Registry> {
  const { log } = await captureLog();
  const stop = new AbortController();
  use({ [Symbol.asyncDispose]: () => Promise.resolve(stop.abort()) });
  const probe = () => Promise.resolve(firstIsUp);
  return failover(first, second, { log, probe, stop: stop.signal, fellBack: () => undefined });
}

testMaker('upstream', repository, async (content, use) => {
  const url = await serve(filled(content), use);
  const options = { name: 'hub', url, authHosts: [], mirrors: [], credentials: [], rateLimit: unlimited, metrics: noRegistryMetrics };
  return upstream({ ...options, routes: { own: transport(), outside: transport() } }).registry;
});
testMaker('createUpstream, its mirror down', repository, async (content, use) => {
  const url = await serve(filled(content), use);
  const { registry: config } = parseConfig({ registry: { upstreams: { hub: { url, mirrors: [{ url: 'http://127.0.0.1:1' }] } } } });
  const hub = config.upstreams['hub'] as Upstream;
  return createUpstream('hub', hub, { rateLimit: unlimited, metrics: noRegistryMetrics }).registry;
});
testMaker('firstAllowed, whose first login sees nothing', repository, (content) =>
  Promise.resolve(firstAllowed({ candidatesFor: () => [createMemory().registry, filled(content)] })),
);
testMaker('remote', repository, async (content, use) => {
  const url = await serve(filled(content), use);
  return remote({ name: 'registry', url, transport: transport(), metrics: noRegistryMetrics });
});

async function openNearest(url: string, sharing?: Sharing): Promise<Registry> {
  const { log } = await captureLog();
  const metrics = { received: () => undefined, depth: () => undefined, left: () => undefined };
  const registry = remote({ name: 'registry', url, transport: transport(), metrics: noRegistryMetrics });
  const questions = createQuestions({ url, headers: {}, transport: transport(), log });
  const places = createPlaces({ transport: transport(), pingTransport: transport() });
  return nearest(registry, { questions, places, sharing, direct: undefined, log, metrics });
}

testMaker('nearest, of a registry that knows no other places', repository, async (content, use) => {
  return openNearest(await serve(filled(content), use));
});
testMaker('nearest, which shares every blob', repository, async (content, use) => {
  const inner = filled(content);
  const redirect: ServeOptions['redirect'] = async (repository, digest, { head, context }) => {
    if (head) return undefined;
    const { size } = await inner.stat(repository, digest, context);
    return { location: undefined, headers: [PLACE_HEADER, formatPlace({ kind: 'registry', depth: 1, size })] };
  };
  const { log } = await captureLog();
  const { path } = use(await temporaryDirectory());
  const sharing = await openSharing({ directory: path, maxSize: 2 ** 30, keep: 60_000, zone: '', log });
  use({ [Symbol.asyncDispose]: () => sharing.close(AbortSignal.timeout(10_000)) });
  sharing.listensAt('127.0.0.1:1');
  return openNearest(await serve(inner, use, [], { redirect }), sharing);
});
testMaker('createPeer', prefixed, async (content, use) => {
  const url = await serve(filled(content, prefixed), use, ['dockerhub']);
  return createPeer({ url, transport: transport(), pingTransport: transport(), changed: () => undefined, metrics: noRegistryMetrics })
    .registry;
});
testMaker('routed', prefixed, (content) => Promise.resolve(routed({ dockerhub: { registry: filled(content) } })));
testMaker('observed', repository, (content) => Promise.resolve(observed(filled(content), () => undefined)));
testMaker('guarded, by rules that admit it', repository, (content) => {
  const rules = createRules({ allow: ['hub/*'], deny: ['hub/*:refused'], namesOf: (name) => [name] });
  const firstSeen = { at: () => Promise.resolve(0), recall: () => Promise.resolve(0), inherit: () => Promise.resolve() };
  return Promise.resolve(
    guarded(filled(content), 'hub', {
      rules,
      tags: createKnownTags([]),
      age: { minimumMs: 1, firstSeen },
      nameOf: (name) => name,
      refused: () => undefined,
      now: Date.now,
    }),
  );
});
testMaker('lazy', repository, (content) => Promise.resolve(lazy(() => Promise.resolve(filled(content)))));

testMaker('failover, both well', repository, (content, use) => over(filled(content), filled(content), use));
testMaker('failover, the first down', repository, (content, use) => over(dead, filled(content), use));
testMaker('failover, the second down', repository, (content, use) => over(filled(content), dead, use));
testMaker('failover, the first cutting bodies', repository, (content, use) => over(cutting(filled(content)), filled(content), use));
testMaker('the agent: failover of a remote and lazy createDirectUpstreams', prefixed, async (content, use) => {
  const url = await serve(filled(content), use);
  const { registry: config } = parseConfig({ registry: { upstreams: { dockerhub: { url } } } });
  const direct = () => createDirectUpstreams(config, { proxy: 'direct', connectTimeout: 1000, metrics: noRegistryMetrics });
  const limits = { attempts: 1, headersMs: 25_000, idleMs: 30_000 };
  const registry = remote({
    name: 'registry',
    url: 'http://127.0.0.1:1',
    transport: transport(),
    metrics: noRegistryMetrics,
    limits,
  });
  return over(
    registry,
    lazy(() => Promise.resolve(direct())),
    use,
    false,
  );
});

async function open(storage: Record<string, unknown>, upstreams: Record<string, unknown>, use: Use) {
  const { path } = use(await temporaryDirectory());
  const local = { directory: join(path, 'local') };
  const { registry: config } = parseConfig({
    registry: { storage: storage['s3'] === undefined ? { filesystem: { directory: path } } : storage, local, upstreams },
  });
  const { log } = await captureLog();
  const opened = await openStorage(config, { log, metrics: noRegistryMetrics });
  use({ [Symbol.asyncDispose]: () => opened.close(AbortSignal.timeout(10_000)) });
  return { config, storage: opened, log };
}

testMaker('hosted and its createReader(), over what was pushed', repository, async (content, use) => {
  const store = filesystemUploads(await filesystem({ directory: use(await temporaryDirectory()).path }));
  use({ [Symbol.asyncDispose]: () => store.close() });
  const registry = hosted({
    name: 'local',
    store,
    maxBlobSize: 2 ** 30,
    isImmutable: () => false,
    quota: noQuota,
    used: () => undefined,
  });
  const signal = new AbortController().signal;
  for (const { descriptor, bytes } of content.blobs) {
    const chunk = {
      start: undefined,
      length: bytes.length,
      body: (async function* () {
        yield [bytes];
      })(),
    };
    await registry.putBlob(repository, descriptor.digest, { chunk, signal });
  }
  for (const { descriptor, bytes, tags = [] } of content.manifests) {
    const { mediaType, digest } = descriptor;
    await registry.putManifest(repository, digest, { bytes, mediaType, tags: tags.map(parseTag), signal });
  }
  return registry;
});

testMaker('cached', repository, async (content, use) => {
  const { storage, log } = await open({}, {}, use);
  const cache = await createCache({ storage, spoolDirectory: storage.spoolDirectory, peers: noPeers, metrics: noRegistryMetrics, log });
  use({
    async [Symbol.asyncDispose]() {
      await cache.downloads.close(AbortSignal.timeout(10_000));
      await cache.records.flush(AbortSignal.timeout(10_000));
    },
  });
  const registry = filled(content);
  const times = { tagTtl: 60_000, staleFor: 60_000, negativeTtl: 1000 };
  return cached({ registry, origin: registry }, cache, {
    name: 'hub',
    rateLimit: unlimited,
    connections: 4,
    onDeleted: 'forget',
    credentialed: () => false,
    ...times,
  });
});
for (const kind of ['filesystem', 's3'] as const) {
  testMaker(`the registry: createImages over ${kind}`, prefixed, async (content, use) => {
    const url = await serve(filled(content), use);
    const s3 = kind === 's3' ? use(await startVersitygw()) : undefined;
    const { endpoint, bucket, region, accessKeyId, secretAccessKey } = s3 ?? {};
    const chosen = s3 === undefined ? {} : { s3: { endpoint, bucket, region, accessKeyId, secretAccessKey } };
    const { config, storage, log } = await open(chosen, { dockerhub: { url } }, use);
    const { images, close } = await createImages(config, { storage, log, counts: noRegistryMetrics });
    use({ [Symbol.asyncDispose]: () => close(AbortSignal.timeout(10_000)) });
    return images;
  });
}
