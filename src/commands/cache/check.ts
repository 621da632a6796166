import { ConfigError } from '../../config/load.ts';
import type { RegistryConfig } from '../../config/schema.ts';
import { printable } from '../../io/printable.ts';
import { BLOB_MEDIA_TYPE, type Descriptor } from '../../oci/descriptor.ts';
import { isDigest } from '../../oci/digest.ts';
import { OciError } from '../../oci/error.ts';
import { servedHosts } from '../../oci/image-name.ts';
import { parseRepository, type Repository } from '../../oci/reference.ts';
import { checkImage, type Check } from '../../policy/check.ts';
import type { Store } from '../../store/store.ts';
import type { Log } from '../../telemetry/log.ts';
import { noRegistryMetrics } from '../../telemetry/registry-metrics.ts';
import { readTag } from '../../upkeep/tags.ts';
import type { Host } from '../command.ts';
import { createGuard } from '../wiring/policy.ts';
import { createServedUpstreams } from '../wiring/served-upstreams.ts';
import { openStore } from '../wiring/storage.ts';
import { parseWarmName, type WarmName } from './warm-name.ts';

export interface CheckCommandOptions {
  /** The image, as written in pods. */
  image: string;
  json: boolean;
}

/** `kube-registry cache check IMAGE`: shows whether the registry would serve an image, and why. 1:
 *  it would not.
 *  @throws ConfigError: this registry does not serve the image; OciError UNAVAILABLE: the store
 *  does not answer */
export async function cacheCheck({ config, log, stop, stdout }: Host, { image, json }: CheckCommandOptions): Promise<number> {
  const { registry, webhook } = config;
  const located = parseWarmName(image, { registryHost: webhook.registryHost, hosts: servedHosts(registry) });
  if (located === undefined) {
    throw new ConfigError(
      `found ${JSON.stringify(image)}, which is not an image name, or has a host that no upstream serves; accepted: nginx:1.27, ghcr.io/owner/name:1`,
    );
  }
  const store = await openStore(registry);
  try {
    const { policy } = createGuard(registry, { storage: { local: store, remote: undefined, records: store }, refused: () => undefined });
    const check = await checkImage(located.repository, located.reference, {
      policy,
      store,
      tagTtl: tagTtlOf(registry, located.repository),
      askUpstream: (signal) => askUpstream(registry, { ...located, store, log, signal }),
      signal: stop,
    });
    stdout.write(json ? `${JSON.stringify({ image, ...located, ...check }, undefined, 2)}\n` : render(image, located, check));
    return check.served ? 0 : 1;
  } finally {
    await store.close();
  }
}

function firstOf(repository: Repository): string {
  return repository.slice(0, repository.indexOf('/'));
}

function tagTtlOf({ upstreams, cache }: RegistryConfig, repository: Repository): number {
  return upstreams[firstOf(repository)]?.tagTtl ?? cache.tagTtl;
}

/** @throws OciError as `Registry.resolve` does */
async function askUpstream(
  config: RegistryConfig,
  { repository, reference, store, log, signal }: WarmName & { store: Store; log: Log; signal: AbortSignal },
): Promise<Descriptor> {
  const name = firstOf(repository);
  if (Object.hasOwn(config.hosted, name)) {
    const digest = isDigest(reference) ? reference : (await readTag(store, { repository, tag: reference }, { signal }))?.digest;
    if (digest === undefined) throw new OciError('MANIFEST_UNKNOWN', `no image was pushed as ${repository}:${reference}`);
    return { digest, mediaType: BLOB_MEDIA_TYPE, size: 0 };
  }
  const upstream = createServedUpstreams(config, { counts: noRegistryMetrics, log }).find(name)?.upstream;
  if (upstream === undefined) throw new OciError('NAME_UNKNOWN', `no upstream is named ${name}`);
  return upstream.registry.resolve(parseRepository(repository.slice(name.length + 1)), reference, { signal });
}

function render(image: string, { repository, reference }: WarmName, check: Check): string {
  const { served, rule, reason, digest, firstSeen, servedFrom, stored, tag, upstream } = check;
  const facts: [string, string | null][] = [
    ['image', image],
    ['served as', `${repository}${isDigest(reference) ? '@' : ':'}${reference}`],
    ['served', `${served ? 'yes' : 'no'}: ${reason}`],
    ['rule', rule ?? 'none concerns it'],
    ['digest', digest],
    ['stored', { complete: 'yes', partly: 'partly', no: 'no' }[stored]],
    ['tag', tag === null ? null : `${tag.digest}, checked ${tag.checkedAt}${tag.fresh ? '' : ', due to be checked again'}`],
    ['gone since', tag?.goneSince ?? null],
    ['first seen', firstSeen],
    ['served from', servedFrom],
    ['upstream', `${upstream.answer}: ${upstream.message}`],
  ];
  return facts.map(([name, value]) => (value === null ? '' : `${name.padEnd(13)}${printable(value)}\n`)).join('');
}
