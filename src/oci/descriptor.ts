import { isDigest, type Digest } from './digest.ts';
import { OciError } from './error.ts';

/** A descriptor of the image specification, with the fields that this program uses. */
export interface Descriptor {
  mediaType: string;
  digest: Digest;
  /** Bytes. */
  size: number;
}

/** The maximum size of a manifest, in bytes (distribution
 *  specification, "Pushing Manifests"). */
export const MAX_MANIFEST_SIZE = 4 * 1024 * 1024;

export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const DOCKER_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json';
const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';
export const BLOB_MEDIA_TYPE = 'application/octet-stream';

/** All manifest types that are requested and stored. Every request to an upstream accepts all of
 *  them, so that the answer depends on the reference alone, never on the client that asked
 *  first. */
export const MANIFEST_MEDIA_TYPES: readonly string[] = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];

/** The content that a manifest names: the manifests of an index, the config and layers of an image,
 *  and its subject. */
export interface ManifestContent {
  mediaType: string;
  manifests: (Descriptor & { platform?: Platform })[];
  blobs: Descriptor[];
  /** The subject of an artifact, such as the image of a signature. It need not exist. */
  subject?: Digest;
}
export interface Platform {
  os: string;
  architecture: string;
  variant?: string;
}

/** Reads a manifest or an index of any of MANIFEST_MEDIA_TYPES. The document's own `mediaType` wins
 *  over the header's.
 *  @throws OciError MANIFEST_INVALID: not JSON, not an object, schema 1, or descriptors without a
 *  digest */
export function parseManifest(bytes: Uint8Array, mediaType: string): ManifestContent {
  return contentOf(parseDocument(bytes), mediaType);
}

/** JSON has no byte order mark (RFC 8259 §8.1), and Go's parser takes none. */
const DECODER = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The fields of a manifest. @throws OciError MANIFEST_INVALID: not JSON, or not an object */
export function parseDocument(bytes: Uint8Array): Readonly<Record<string, unknown>> {
  let document: unknown;
  try {
    document = JSON.parse(DECODER.decode(bytes));
  } catch (cause) {
    throw new OciError('MANIFEST_INVALID', 'the manifest is not JSON', { cause });
  }
  if (!isRecord(document)) throw new OciError('MANIFEST_INVALID', 'the manifest is not a JSON object');
  return document;
}

/** @throws OciError MANIFEST_INVALID: schema 1, or descriptors without a digest */
export function contentOf(document: Readonly<Record<string, unknown>>, mediaType: string): ManifestContent {
  if (document['schemaVersion'] === 1) {
    throw new OciError(
      'MANIFEST_INVALID',
      'the image has a Docker schema 1 manifest, which containerd no longer pulls either; push it again with a current client',
    );
  }
  const own = document['mediaType'];
  const layers = descriptors(document['layers']);
  const config = document['config'] === undefined ? [] : descriptors([document['config']]);
  const subject = isRecord(document['subject']) ? document['subject']['digest'] : undefined;
  return {
    mediaType: typeof own === 'string' && own !== '' ? own : mediaType,
    manifests: descriptors(document['manifests']),
    blobs: [...config, ...layers],
    ...(typeof subject === 'string' && isDigest(subject) ? { subject } : {}),
  };
}

function descriptors(list: unknown): (Descriptor & { platform?: Platform })[] {
  if (list === undefined || list === null) return [];
  if (!Array.isArray(list)) throw new OciError('MANIFEST_INVALID', 'the manifest has a field for descriptors that is not a list');
  return list.map((entry: unknown) => {
    if (!isRecord(entry) || typeof entry['digest'] !== 'string' || !isDigest(entry['digest'])) {
      throw new OciError('MANIFEST_INVALID', 'the manifest has a descriptor without a digest');
    }
    const { digest, size, mediaType, platform } = entry;
    return {
      digest,
      mediaType: typeof mediaType === 'string' ? mediaType : BLOB_MEDIA_TYPE,
      size: typeof size === 'number' ? size : 0,
      ...(isPlatform(platform) ? { platform } : {}),
    };
  });
}

function isPlatform(value: unknown): value is Platform {
  return isRecord(value) && typeof value['os'] === 'string' && typeof value['architecture'] === 'string';
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
