import { OCI_INDEX, OCI_MANIFEST, type Descriptor } from '../oci/descriptor.ts';
import { digestOf } from '../oci/digest.ts';
import type { Memory, MemoryManifest } from './memory-registry.ts';

/** The content of one repository, for the registry under test. */
export interface SampleContent {
  blobs: SampleBlob[];
  /** In the order of a push: content comes before the manifests that refer to it. */
  manifests: (MemoryManifest & { descriptor: Descriptor })[];
  /** A layer of a few MiB. */
  layer: SampleBlob;
  index: Descriptor;
  /** The image of the index's one platform. */
  image: Descriptor;
  /** Its subject is the image. */
  artifact: Descriptor;
  artifactType: string;
  /** All of them, sorted. */
  tags: string[];
}

export interface SampleBlob {
  descriptor: Descriptor;
  bytes: Uint8Array;
}

const LAYER = 'application/vnd.oci.image.layer.v1.tar';

/** An index, an image of two layers, an artifact that refers to the image. Always the same
 *  bytes. */
export function sampleContent(): SampleContent {
  const config = makeBlob(Buffer.from('{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}'), CONFIG);
  const empty = makeBlob(Buffer.from('{}'), 'application/vnd.oci.empty.v1+json');
  const small = makeBlob(randomLike(1_000, 1), LAYER);
  const layer = makeBlob(randomLike(3 * 2 ** 20 + 17, 2), LAYER);
  const artifactType = 'application/vnd.example.sbom';

  const image = makeManifest({ mediaType: OCI_MANIFEST, config: config.descriptor, layers: [small.descriptor, layer.descriptor] }, ['1.0']);
  const platform = { os: 'linux', architecture: 'amd64' };
  const index = makeManifest({ mediaType: OCI_INDEX, manifests: [{ ...image.descriptor, platform }] }, ['1.1', 'latest']);
  const artifact = makeManifest({
    mediaType: OCI_MANIFEST,
    artifactType,
    config: empty.descriptor,
    layers: [small.descriptor],
    subject: image.descriptor,
  });
  return {
    blobs: [config, empty, small, layer],
    manifests: [image, index, artifact],
    layer,
    index: index.descriptor,
    image: image.descriptor,
    artifact: artifact.descriptor,
    artifactType,
    tags: ['1.0', '1.1', 'latest'],
  };
}

const CONFIG = 'application/vnd.oci.image.config.v1+json';

export function addSampleContent(memory: Memory, repository: string, content: SampleContent): void {
  for (const { bytes } of content.blobs) memory.addBlob(repository, bytes);
  for (const manifest of content.manifests) memory.addManifest(repository, manifest);
}

function makeBlob(bytes: Uint8Array, mediaType: string): SampleBlob {
  return { descriptor: { mediaType, digest: digestOf(bytes), size: bytes.length }, bytes };
}

function makeManifest(document: { mediaType: string; [key: string]: unknown }, tags: string[] = []): SampleContent['manifests'][number] {
  const { mediaType } = document;
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, ...document }, undefined, 2));
  return { mediaType, bytes, tags, descriptor: { mediaType, digest: digestOf(bytes), size: bytes.length } };
}

/** Bytes without a pattern, the same each time: a linear congruential generator. */
function randomLike(length: number, seed: number): Uint8Array {
  const words = new Uint32Array(Math.ceil(length / 4));
  let state = seed;
  for (let index = 0; index < words.length; index++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    words[index] = state;
  }
  return new Uint8Array(words.buffer, 0, length);
}
