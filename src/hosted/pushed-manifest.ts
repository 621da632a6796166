import { MANIFEST_MEDIA_TYPES, MAX_MANIFEST_SIZE, OCI_INDEX, OCI_MANIFEST, parseManifest } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';

/** What a pushed manifest says of itself. */
export interface ManifestParts {
  mediaType: string;
  /** Everything that it names, but its subject: manifests, config and layers. */
  named: Digest[];
  /** Of these, what has to be there: not what only its vendor may distribute. */
  required: Digest[];
  subject: Digest | undefined;
  /** What the index of its subject's referrers says beside its descriptor (distribution specification, "Listing Referrers"). */
  referrer: { artifactType?: string; annotations?: Record<string, string> };
}

/** Reads a manifest or an index that a client pushes. @param contentType of the request
 *  @throws OciError MANIFEST_INVALID: too large, malformed, or of another type than the request says */
export function parsePushedManifest(bytes: Uint8Array, contentType: string): ManifestParts {
  if (bytes.length > MAX_MANIFEST_SIZE) {
    throw new OciError('MANIFEST_INVALID', `the manifest has ${bytes.length} bytes, more than the ${MAX_MANIFEST_SIZE} allowed`);
  }
  const given = contentType.split(';', 1)[0]?.trim().toLowerCase() ?? '';
  const content = parseManifest(bytes, given);
  const document = JSON.parse(Buffer.from(bytes).toString()) as Record<string, unknown>;
  if (document['schemaVersion'] !== 2) throw new OciError('MANIFEST_INVALID', 'the manifest has no "schemaVersion": 2');
  const mediaType = content.mediaType === '' ? guessMediaType(document) : content.mediaType;
  if (given !== '' && given !== mediaType) {
    throw new OciError('MANIFEST_INVALID', `the manifest says that it is ${mediaType}, and its Content-Type that it is ${given}`);
  }
  if (!MANIFEST_MEDIA_TYPES.includes(mediaType)) {
    throw new OciError('MANIFEST_INVALID', `${mediaType} is no type of manifest that is kept here: ${MANIFEST_MEDIA_TYPES.join(', ')}`);
  }
  const required = content.blobs.filter((blob) => !/nondistributable|foreign/.test(blob.mediaType));
  return {
    mediaType,
    named: [...content.manifests, ...content.blobs].map(({ digest }) => digest),
    required: [...content.manifests, ...required].map(({ digest }) => digest),
    subject: content.subject,
    referrer: { ...artifactTypeOf(document), ...annotationsOf(document) },
  };
}

function guessMediaType(document: Record<string, unknown>): string {
  return Array.isArray(document['manifests']) ? OCI_INDEX : OCI_MANIFEST;
}

/** An image's config type stands in for a missing artifactType; an index has none then. */
function artifactTypeOf({ artifactType, config }: Record<string, unknown>): { artifactType?: string } {
  if (typeof artifactType === 'string' && artifactType !== '') return { artifactType };
  const type = (config as Record<string, unknown> | undefined)?.['mediaType'];
  return typeof type === 'string' ? { artifactType: type } : {};
}

function annotationsOf({ annotations }: Record<string, unknown>): { annotations?: Record<string, string> } {
  if (typeof annotations !== 'object' || annotations === null || Array.isArray(annotations)) return {};
  return { annotations: annotations as Record<string, string> };
}
