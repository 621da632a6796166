import { parseManifest, type Descriptor } from '../oci/descriptor.ts';
import { isDigest, splitDigest, type Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';

// The files of an OCI image layout (image specification, "OCI Image Layout Specification").

export const LAYOUT_FILE = 'oci-layout';
export const INDEX_FILE = 'index.json';
/** The list that `docker load` and crane look for; Docker 25 and later write it in addition to the
 *  layout's own index. */
export const DOCKER_FILE = 'manifest.json';
export const LAYOUT_VERSION = '1.0.0';

/** The annotation by which skopeo and others name an entry of the index (image specification,
 *  "Annotations"). */
const REF_NAME = 'org.opencontainers.image.ref.name';
/** containerd's annotation for the whole name: `docker.io/library/nginx:1.27`. */
const CONTAINERD_NAME = 'io.containerd.image.name';

/** Where a layout keeps the bytes of a digest. */
export function blobPath(digest: Digest): string {
  const { algorithm, hex } = splitDigest(digest);
  return `blobs/${algorithm}/${hex}`;
}

/** An image that a layout's index names. */
export interface LayoutImage {
  descriptor: Descriptor;
  /** containerd's name if there is one, else the reference name: the whole name of an image, or its
   *  tag alone.
   *  Undefined: the entry has no name. */
  name: string | undefined;
}

/** @throws OciError MANIFEST_INVALID: not a layout, or one of another version */
export function checkLayoutVersion(bytes: Uint8Array): void {
  const version = fieldOf(parseJson(bytes, LAYOUT_FILE), 'imageLayoutVersion');
  if (version === LAYOUT_VERSION) return;
  throw new OciError('MANIFEST_INVALID', `${LAYOUT_FILE} has the version ${JSON.stringify(version)}; only ${LAYOUT_VERSION} is known`);
}

/** Reads a layout's index.json. @throws OciError MANIFEST_INVALID: it is not an image index */
export function parseLayoutIndex(bytes: Uint8Array): LayoutImage[] {
  const list = fieldOf(parseJson(bytes, INDEX_FILE), 'manifests');
  const { manifests } = parseManifest(bytes, '');
  return manifests.map((descriptor, index) => {
    const annotations = Array.isArray(list) ? fieldOf(list[index], 'annotations') : undefined;
    const named = [fieldOf(annotations, CONTAINERD_NAME), fieldOf(annotations, REF_NAME)];
    return { descriptor, name: named.find((name): name is string => typeof name === 'string' && name !== '') };
  });
}

/** Writes a layout's index.json. `name` is the full name of the image; referrers have none, since
 *  their subjects say which image they belong to. */
export function formatLayoutIndex(
  images: readonly { descriptor: Descriptor; name: string }[],
  referrers: Iterable<Descriptor> = [],
): Uint8Array {
  const named = images.map(({ descriptor: { mediaType, digest, size }, name }) => ({
    mediaType,
    digest,
    size,
    annotations: { [CONTAINERD_NAME]: name, [REF_NAME]: name },
  }));
  const manifests = [...named, ...Array.from(referrers, ({ mediaType, digest, size }) => ({ mediaType, digest, size }))];
  return Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests }));
}

/** One image as `docker load` reads it. */
export interface DockerImage {
  config: Digest;
  layers: readonly Digest[];
  /** Undefined: the image was named by its digest. */
  tag: string | undefined;
}

/** Writes the `manifest.json` of `docker save` (Docker image specification v1.2, "Combined Image
 *  JSON + Filesystem Changeset Format"). */
export function formatDockerIndex(images: readonly DockerImage[]): Uint8Array {
  const entries = images.map(({ config, layers, tag }) => ({
    Config: blobPath(config),
    RepoTags: tag === undefined ? [] : [tag],
    Layers: layers.map(blobPath),
  }));
  return Buffer.from(JSON.stringify(entries));
}

/** The digest of the blob at a path of a layout; undefined: the path is not a blob's. */
export function parseBlobPath(path: string): Digest | undefined {
  const [, algorithm = '', hex = ''] = /^blobs\/([a-z0-9]+)\/([0-9a-f]+)$/.exec(path) ?? [];
  const digest = `${algorithm}:${hex}`;
  return isDigest(digest) ? digest : undefined;
}

function parseJson(bytes: Uint8Array, file: string): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new OciError('MANIFEST_INVALID', `${file} of the archive is not JSON`, { cause });
  }
}

function fieldOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}
