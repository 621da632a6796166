import { open, rename, rm, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { Writable } from 'node:stream';
import { formatPlatform, matchesPlatform } from '../oci/platform.ts';
import { parseManifest, type Descriptor } from '../oci/descriptor.ts';
import { agrees, createDigestHash, type Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import type { Reference, Repository } from '../oci/reference.ts';
import type { Manifest } from '../oci/registry.ts';
import {
  blobPath,
  DOCKER_FILE,
  formatDockerIndex,
  formatLayoutIndex,
  INDEX_FILE,
  LAYOUT_FILE,
  LAYOUT_VERSION,
  type DockerImage,
} from './image-layout.ts';
import { createTarWriter, type TarWriter } from './tar-file.ts';

/** An image to be exported. */
export interface ExportName {
  /** The full name in the archive: `docker.io/library/nginx:1.27`. */
  name: string;
  /** With the upstream in front: dockerhub/library/nginx. */
  repository: Repository;
  reference: Reference;
}

/** The source of exported images. Every method throws OciError. */
export interface ImageReader {
  manifest(repository: Repository, reference: Reference, signal: AbortSignal): Promise<Manifest>;
  /** The manifests that refer to a digest, such as its signatures. */
  referrers(repository: Repository, subject: Digest, signal: AbortSignal): Promise<Digest[]>;
  /** All bytes of a blob. */
  blob(repository: Repository, descriptor: Descriptor, signal: AbortSignal): Promise<AsyncIterable<Uint8Array>>;
}

export interface ExportOptions {
  images: readonly ExportName[];
  reader: ImageReader;
  /** A path: the file appears there when it is complete, and replaces another one; or a stream,
   *  which stays open. */
  output: string | Writable;
  /** `linux/amd64`, `linux/arm/v7`; or all platforms of an index. */
  platforms: readonly string[] | 'all';
  /** Signatures, SBOMs and other referrers as well. */
  referrers: boolean;
  signal: AbortSignal;
  /** Called after each piece, with the bytes of blobs written and of all blobs to write. */
  progress?(this: void, done: number, total: number): void;
}

export interface ExportResult {
  images: number;
  /** Those of referrers included. */
  manifests: number;
  referrers: number;
  blobs: number;
  /** The size of the exported manifests and blobs. */
  bytes: number;
}

/** The contents of one archive, each digest once. */
interface Contents {
  roots: { descriptor: Descriptor; name: string }[];
  referrers: Map<Digest, Descriptor>;
  docker: DockerImage[];
  manifests: Map<Digest, Uint8Array>;
  blobs: Map<Digest, { repository: Repository; descriptor: Descriptor }>;
}

/** Writes images into one tar file, an OCI image layout that skopeo, crane, `ctr image import` and
 *  `docker load` read. Indexes stay as they are; with `platforms`, the file has only the manifests
 *  and blobs of the chosen platforms.
 *  @throws OciError as the reader does; MANIFEST_UNKNOWN: an index has none of the platforms;
 *  UNAVAILABLE: the bytes of a blob do not match its digest; errors of the file system. Then no
 *  file is left. */
export async function exportImages(options: ExportOptions): Promise<ExportResult> {
  const contents: Contents = { roots: [], referrers: new Map(), docker: [], manifests: new Map(), blobs: new Map() };
  for (const image of options.images) await collect(image, options, contents);
  const { output } = options;
  const write = (target: FileHandle | Writable) => writeContents(createTarWriter(target), contents, options);
  const bytes = output instanceof Writable ? await write(output) : await writeFile(output, write);
  const { roots, referrers, manifests, blobs } = contents;
  return { images: roots.length, manifests: manifests.size, referrers: referrers.size, blobs: blobs.size, bytes };
}

/** Lets `write` fill a file, which appears under its path when it is complete. */
async function writeFile<T>(path: string, write: (file: FileHandle) => Promise<T>): Promise<T> {
  const temporary = join(dirname(path), `.${basename(path)}.partial`);
  const file = await open(temporary, 'w');
  try {
    const result = await write(file);
    await file.sync();
    await rename(temporary, path);
    return result;
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  } finally {
    await file.close();
  }
}

/** The maximum number of signatures and other referrers in one file. */
const MAX_REFERRERS = 10_000;

async function collect(image: ExportName, { reader, platforms, referrers, signal }: ExportOptions, contents: Contents): Promise<void> {
  const { name, repository } = image;
  const subjects = new Set<Digest>();
  /** @returns the first image of one platform below `reference`, itself included */
  async function visit(reference: Reference): Promise<{ descriptor: Descriptor; docker: DockerImage | undefined }> {
    const { descriptor, bytes } = await reader.manifest(repository, reference, signal);
    contents.manifests.set(descriptor.digest, bytes);
    subjects.add(descriptor.digest);
    const content = parseManifest(bytes, descriptor.mediaType);
    for (const blob of content.blobs) if (isDistributable(blob)) contents.blobs.set(blob.digest, { repository, descriptor: blob });
    const [config, ...layers] = content.blobs;
    let docker: DockerImage | undefined =
      config === undefined ? undefined : { config: config.digest, layers: layers.map(({ digest }) => digest), tag: tagOf(name) };
    const children = choosePlatforms(name, content.manifests, platforms);
    for (const child of children) {
      const { docker: first } = await visit(child.digest);
      docker ??= first;
    }
    return { descriptor: { ...descriptor, size: bytes.length }, docker };
  }
  const { descriptor, docker } = await visit(image.reference);
  contents.roots.push({ descriptor, name });
  if (docker !== undefined) contents.docker.push(docker);
  if (!referrers) return;
  for (const subject of subjects) {
    for (const digest of await reader.referrers(repository, subject, signal)) {
      if (contents.referrers.size >= MAX_REFERRERS) throw new OciError('UNSUPPORTED', `${name} has more than ${MAX_REFERRERS} referrers`);
      const { descriptor: found } = await visit(digest); // it has referrers of its own
      contents.referrers.set(digest, found);
    }
  }
}

function choosePlatforms(
  name: string,
  manifests: ReturnType<typeof parseManifest>['manifests'],
  platforms: readonly string[] | 'all',
): readonly Descriptor[] {
  if (platforms === 'all' || manifests.length === 0) return manifests;
  const chosen = manifests.filter(({ platform }) => platforms.some((wanted) => matchesPlatform(platform, wanted)));
  if (chosen.length > 0) return chosen;
  const there = manifests.map(({ platform }) => formatPlatform(platform)).filter((platform) => platform !== '');
  throw new OciError(
    'MANIFEST_UNKNOWN',
    `${name} has no ${platforms.join(', ')}, only ${there.join(', ') || 'manifests without a platform'}`,
  );
}

/** Layers that only their vendor may distribute are in no registry (image specification,
 *  "Non-Distributable Layers"). */
function isDistributable({ mediaType }: Descriptor): boolean {
  return !/nondistributable|foreign/.test(mediaType);
}

function tagOf(name: string): string | undefined {
  return name.includes('@') ? undefined : name;
}

async function writeContents(tar: TarWriter, contents: Contents, { reader, signal, progress }: ExportOptions): Promise<number> {
  const total = [...contents.blobs.values()].reduce((sum, { descriptor }) => sum + descriptor.size, 0);
  let done = 0;
  await tar.addBytes(LAYOUT_FILE, Buffer.from(JSON.stringify({ imageLayoutVersion: LAYOUT_VERSION })));
  await tar.addBytes(INDEX_FILE, formatLayoutIndex(contents.roots, contents.referrers.values()));
  await tar.addBytes(DOCKER_FILE, formatDockerIndex(contents.docker));
  let bytes = 0;
  for (const [digest, manifest] of contents.manifests) {
    await tar.addBytes(blobPath(digest), manifest);
    bytes += manifest.length;
  }
  for (const [digest, { repository, descriptor }] of contents.blobs) {
    const body = await reader.blob(repository, descriptor, signal);
    await tar.add(
      blobPath(digest),
      descriptor.size,
      verified(digest, body, (length) => progress?.((done += length), total)),
    );
  }
  await tar.end();
  return bytes + done;
}

/** @throws OciError UNAVAILABLE: the bytes do not match the digest */
async function* verified(digest: Digest, body: AsyncIterable<Uint8Array>, read: (bytes: number) => void): AsyncGenerator<Uint8Array> {
  const hash = createDigestHash(digest);
  for await (const chunk of body) {
    hash.update(chunk);
    yield chunk;
    read(chunk.length);
  }
  if (!agrees(hash, digest))
    throw new OciError('UNAVAILABLE', `the bytes read for ${digest} have another digest: run cache verify --repair`);
}
