import { contentOf, MANIFEST_MEDIA_TYPES, MAX_MANIFEST_SIZE, OCI_INDEX, OCI_MANIFEST, parseDocument } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';

/** The parsed content of a pushed manifest. */
export interface ManifestParts {
  mediaType: string;
  /** Everything that the manifest names except its subject: manifests, config and layers. */
  named: Digest[];
  /** The digests of `named` that must be in the repository: all but layers that only their vendor
   *  may distribute. */
  required: Digest[];
  subject: Digest | undefined;
  /** The fields that the subject's referrers index adds to the descriptor (distribution
   *  specification, "Listing Referrers"). */
  referrer: { artifactType?: string; annotations?: Record<string, string> };
}

/** Parses a manifest or an index that a client pushes. @param contentType of the request
 *  @throws OciError MANIFEST_INVALID: too large, malformed, or of another type than the request
 *  says */
export function parsePushedManifest(bytes: Uint8Array, contentType: string): ManifestParts {
  if (bytes.length > MAX_MANIFEST_SIZE) {
    throw new OciError('MANIFEST_INVALID', `the manifest has ${bytes.length} bytes, more than the ${MAX_MANIFEST_SIZE} allowed`);
  }
  const given = contentType.split(';', 1)[0]?.trim().toLowerCase() ?? '';
  const document = parseDocument(bytes);
  const content = contentOf(document, given);
  if (document['schemaVersion'] !== 2) throw new OciError('MANIFEST_INVALID', 'the manifest has no "schemaVersion": 2');
  const mediaType = content.mediaType === '' ? guessMediaType(document) : content.mediaType;
  if (given !== '' && given !== mediaType) {
    throw new OciError('MANIFEST_INVALID', `the mediaType of the manifest is ${mediaType}, but its Content-Type is ${given}`);
  }
  if (!MANIFEST_MEDIA_TYPES.includes(mediaType)) {
    throw new OciError('MANIFEST_INVALID', `${mediaType} is not a supported type of manifest: ${MANIFEST_MEDIA_TYPES.join(', ')}`);
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

function guessMediaType(document: Readonly<Record<string, unknown>>): string {
  return Array.isArray(document['manifests']) ? OCI_INDEX : OCI_MANIFEST;
}

/** If artifactType is missing, the config type of an image takes its place; an index then has
 *  none. */
function artifactTypeOf({ artifactType, config }: Readonly<Record<string, unknown>>): { artifactType?: string } {
  if (typeof artifactType === 'string' && artifactType !== '') return { artifactType };
  const type = (config as Record<string, unknown> | undefined)?.['mediaType'];
  return typeof type === 'string' ? { artifactType: type } : {};
}

function annotationsOf({ annotations }: Readonly<Record<string, unknown>>): { annotations?: Record<string, string> } {
  if (typeof annotations !== 'object' || annotations === null || Array.isArray(annotations)) return {};
  return { annotations: annotations as Record<string, string> };
}
