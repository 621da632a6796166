import { json } from 'node:stream/consumers';
import { inParallel } from '../../async/parallel.ts';
import { readAll } from '../../io/body.ts';
import { fieldsOf, textOf, type Fields } from '../../io/untrusted.ts';
import { MAX_MANIFEST_SIZE, parseManifest, type Descriptor, type ManifestContent } from '../../oci/descriptor.ts';
import type { Digest } from '../../oci/digest.ts';
import { formatPlatform } from '../../oci/platform.ts';
import { blobKey } from '../../store/keys.ts';
import type { Store } from '../../store/store.ts';
import type { ImageDetail } from '../api/images.ts';

const MAX_PLATFORMS = 100;
const READS_AT_ONCE = 8;
const MAX_CONFIG_BYTES = 2 ** 20;
/** Labels and annotations, cut to a size that the page can show. */
const MAX_TEXTS = 100;
const MAX_TEXT_LENGTH = 2000;

/** What a stored manifest contains. */
export interface Content extends ManifestContent {
  /** Size in bytes of the manifest and its stored blobs. */
  size: number;
  annotations: Record<string, string>;
  layers: ImageDetail['platforms'][number]['layers'];
}

/** Undefined: the manifest is not stored. */
export async function readContent(store: Store, digest: Digest, signal: AbortSignal): Promise<Content | undefined> {
  const found = await store.read(blobKey(digest), { signal });
  const bytes = found === undefined ? undefined : await readAll(found.body, MAX_MANIFEST_SIZE);
  if (bytes === undefined) return undefined;
  try {
    const content = parseManifest(bytes, '');
    const layers = await Promise.all(content.blobs.map((blob) => describeLayer(store, blob, signal)));
    const stored = layers.reduce((sum, layer) => sum + (layer.stored ? layer.size : 0), 0);
    const annotations = textsIn(fieldsOf(fieldsOf(JSON.parse(String(bytes)))['annotations']));
    return { ...content, size: bytes.length + stored, annotations, layers };
  } catch {
    return undefined; // a blob, not a manifest
  }
}

async function describeLayer(store: Store, { digest, mediaType, size }: Descriptor, signal: AbortSignal) {
  const stored = await store.stat(blobKey(digest), { signal });
  return { digest, mediaType, size: stored?.size ?? size, stored: stored !== undefined };
}

export async function describePlatforms(
  store: Store,
  digest: Digest,
  content: Content,
  signal: AbortSignal,
): Promise<ImageDetail['platforms']> {
  if (content.manifests.length === 0) return [await describePlatform(store, { digest, platform: '' }, content, signal)];
  const described = new Map<Digest, ImageDetail['platforms'][number]>();
  const manifests = content.manifests.slice(0, MAX_PLATFORMS);
  await inParallel(manifests, READS_AT_ONCE, async ({ digest, platform }) => {
    const own = await readContent(store, digest, signal);
    described.set(digest, await describePlatform(store, { digest, platform: formatPlatform(platform) }, own, signal));
  });
  return manifests.flatMap(({ digest }) => described.get(digest) ?? []);
}

async function describePlatform(
  store: Store,
  { digest, platform }: { digest: Digest; platform: string },
  content: Content | undefined,
  signal: AbortSignal,
): Promise<ImageDetail['platforms'][number]> {
  const config = content === undefined ? {} : await readConfig(store, content.layers[0], signal);
  const [os, architecture] = [textOf(config['os']), textOf(config['architecture'])];
  return {
    platform: platform === '' && os !== undefined && architecture !== undefined ? `${os}/${architecture}` : platform,
    digest,
    stored: content !== undefined,
    size: content?.size ?? null,
    created: textOf(config['created']) ?? null,
    layers: content?.layers.slice(1) ?? [],
    labels: textsIn(fieldsOf(fieldsOf(config['config'])['Labels'])),
  };
}

async function readConfig(store: Store, layer: Content['layers'][number] | undefined, signal: AbortSignal): Promise<Fields> {
  if (layer === undefined || !layer.stored || layer.size > MAX_CONFIG_BYTES) return {};
  const found = await store.read(blobKey(layer.digest), { signal });
  try {
    return found === undefined ? {} : fieldsOf(await json(found.body));
  } catch (error) {
    if (error instanceof SyntaxError) return {}; // the config of an artifact may be anything
    throw error;
  }
}

function textsIn(fields: Fields): Record<string, string> {
  const texts = Object.entries(fields).flatMap(([key, value]) =>
    typeof value === 'string' ? [[key, value.slice(0, MAX_TEXT_LENGTH)] as const] : [],
  );
  return Object.fromEntries(texts.slice(0, MAX_TEXTS));
}
