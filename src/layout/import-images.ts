import { open, type FileHandle } from 'node:fs/promises';
import { inParallel } from '../async/parallel.ts';
import { MAX_MANIFEST_SIZE, parseManifest, type Descriptor } from '../oci/descriptor.ts';
import { digestOf, isDigest, splitDigest, type Digest } from '../oci/digest.ts';
import { isOciError, OciError } from '../oci/error.ts';
import { formatPlatform } from '../oci/platform.ts';
import type { Reference, Repository } from '../oci/reference.ts';
import { blobKey, tagKey } from '../store/keys.ts';
import type { Store } from '../store/store.ts';
import { entrySource } from './entry-source.ts';
import {
  checkLayoutVersion,
  DOCKER_FILE,
  INDEX_FILE,
  LAYOUT_FILE,
  parseBlobPath,
  parseLayoutIndex,
  type LayoutImage,
} from './image-layout.ts';
import { writeRecord, writeTree, type Tree } from './image-tree.ts';
import { importReferrer, takeReferrers } from './import-referrers.ts';
import { listTar, type TarEntry } from './tar-file.ts';

export interface ImportOptions {
  /** A tar file that holds an OCI image layout: its path, or open for reading; it is closed at the
   *  end. */
  file: string | FileHandle;
  store: Store;
  /** The registry's name for an entry of the layout's index; undefined: no upstream has its host,
   *  or it has no name. */
  locate(this: void, image: LayoutImage): { repository: Repository; reference: Reference } | undefined;
  signal: AbortSignal;
  /** The number of blobs written concurrently. */
  parallel?: number;
  /** Called after each piece, with the bytes of blobs that are in the store and of all blobs to
   *  import. */
  progress?(this: void, done: number, total: number): void;
}

/** `sparse`: images of some platforms are not in the file; the others can be pulled. */
export interface ImportedImage {
  /** The name in the file. */
  name: string;
  digest: Digest;
  outcome: 'imported' | 'sparse' | 'failed';
  /** Missing from the file: platforms of an index, or digests of an image that cannot be
   *  imported. */
  missing: string[];
  error?: string;
}

export interface ImportResult {
  images: ImportedImage[];
  /** Signatures and other referrers of the images. */
  referrers: number;
  blobs: number;
  /** How many of the blobs were stored already. */
  known: number;
  /** Bytes of the blobs. */
  bytes: number;
  /** Blobs of the file whose bytes do not match their digest; none of them was stored. */
  corrupt: Digest[];
}

interface Archive {
  file: FileHandle;
  entries: ReadonlyMap<Digest, TarEntry>;
}

/** Puts the images of a layout into a store as if their upstreams had served them. Blobs come first
 *  and names last: an interrupted import leaves no visible image, and continues when it is run
 *  again.
 *  @throws OciError MANIFEST_INVALID: the file is not a layout; UNAVAILABLE: the store cannot be
 *  read or written; errors of the file system */
export async function importImages(options: ImportOptions): Promise<ImportResult> {
  const file = typeof options.file === 'string' ? await open(options.file, 'r') : options.file;
  try {
    const { archive, images } = await openLayout(file, options.signal);
    const result: ImportResult = { images: [], referrers: 0, blobs: 0, known: 0, bytes: 0, corrupt: [] };
    const trees = new Map<LayoutImage, Tree>();
    for (const image of images) {
      try {
        trees.set(image, await readTree(archive, image.descriptor));
      } catch (error) {
        if (!isOciError(error)) throw error;
        result.images.push(failed(image, error.message));
      }
    }
    const attached = takeReferrers(trees);
    await importBlobs(archive, { ...options, trees: [...trees.values(), ...attached], result });
    const places = new Map<Digest, Repository[]>();
    for (const [image, tree] of trees) result.images.push(await importImage(image, tree, { ...options, places }));
    for (const tree of attached) if (await importReferrer(tree, places, options)) result.referrers++;
    return result;
  } finally {
    await file.close();
  }
}

async function openLayout(file: FileHandle, signal: AbortSignal): Promise<{ archive: Archive; images: LayoutImage[] }> {
  const files = new Map<string, TarEntry>();
  const entries = new Map<Digest, TarEntry>();
  for (const entry of await listTar(file, signal)) {
    const digest = parseBlobPath(entry.path);
    const isWanted = digest !== undefined || [LAYOUT_FILE, INDEX_FILE, DOCKER_FILE].includes(entry.path);
    if (!isWanted) continue;
    if (!['File', 'OldFile', 'ContiguousFile'].includes(entry.type)) throw notALayout(`${entry.path} is a ${entry.type}, not a file`);
    if (digest !== undefined) entries.set(digest, entry);
    else if (files.has(entry.path)) throw notALayout(`it holds ${entry.path} twice`);
    else files.set(entry.path, entry);
  }
  const [layout, index] = [files.get(LAYOUT_FILE), files.get(INDEX_FILE)];
  if (layout === undefined || index === undefined) {
    const hint = files.has(DOCKER_FILE) ? ': skopeo copy docker-archive:FILE oci-archive:OTHER converts it' : '';
    throw notALayout(`it holds no ${layout === undefined ? LAYOUT_FILE : INDEX_FILE}${hint}`);
  }
  checkLayoutVersion(await readEntry(file, layout));
  const images = parseLayoutIndex(await readEntry(file, index));
  if (images.length === 0) throw notALayout(`its ${INDEX_FILE} names no image`);
  return { archive: { file, entries }, images };
}

function notALayout(why: string): OciError {
  return new OciError('MANIFEST_INVALID', `the archive is not an OCI image layout that can be imported: ${why}`);
}

async function readEntry(file: FileHandle, { path, offset, size }: TarEntry): Promise<Buffer> {
  if (size > MAX_MANIFEST_SIZE) throw notALayout(`${path} has ${size} bytes, more than the ${MAX_MANIFEST_SIZE} allowed`);
  const bytes = Buffer.alloc(size);
  const { bytesRead } = await file.read(bytes, 0, size, offset);
  if (bytesRead < size) throw notALayout(`the file became shorter while it was read`);
  return bytes;
}

/** Reads the manifests below `root`, and lists the blobs that they name.
 *  @throws OciError MANIFEST_INVALID: a manifest does not match its digest, is damaged, or is
 *  missing */
async function readTree(archive: Archive, root: Descriptor): Promise<Tree> {
  const tree: Tree = { manifests: [], blobs: new Map(), missing: [] };
  const visited = new Set<Digest>();

  async function visit({ digest, mediaType }: Descriptor): Promise<void> {
    if (visited.has(digest)) return;
    visited.add(digest);
    const entry = archive.entries.get(digest);
    if (entry === undefined) throw new OciError('MANIFEST_INVALID', `the manifest ${digest} is not in the file`);
    const bytes = await readEntry(archive.file, entry);
    if (digestOf(bytes, splitDigest(digest).algorithm) !== digest) {
      throw new OciError('MANIFEST_INVALID', `the bytes of ${digest} have another digest`);
    }
    const content = parseManifest(bytes, mediaType);
    for (const blob of content.blobs) tree.blobs.set(blob.digest, blob);
    for (const child of content.manifests) {
      if (archive.entries.has(child.digest)) await visit(child);
      else tree.missing.push(formatPlatform(child.platform) || child.digest);
    }
    // Children come before their index, so that an interrupted import never leaves an index without
    // its manifests.
    tree.manifests.push({ descriptor: { digest, mediaType: content.mediaType, size: bytes.length }, bytes });
  }

  await visit(root);
  return tree;
}

async function importBlobs(
  archive: Archive,
  { trees, result, store, signal, parallel = 4, progress }: ImportOptions & { trees: readonly Tree[]; result: ImportResult },
): Promise<void> {
  const wanted = new Map<Digest, Descriptor>();
  for (const { blobs } of trees) for (const [digest, blob] of blobs) if (archive.entries.has(digest)) wanted.set(digest, blob);
  const sizes = [...wanted.keys()].map((digest) => archive.entries.get(digest)?.size ?? 0);
  const total = sizes.reduce((sum, size) => sum + size, 0);
  let done = 0;
  const advance = (bytes: number): void => progress?.((done += bytes), total);
  await inParallel(wanted.keys(), parallel, async (digest) => {
    const entry = archive.entries.get(digest);
    if (entry === undefined) return;
    result.blobs++;
    result.bytes += entry.size;
    const stored = await store.stat(blobKey(digest), { signal });
    if (stored?.size === entry.size) {
      result.known++;
      advance(entry.size);
      return;
    }
    const source = entrySource(archive.file, { entry, digest, advance });
    try {
      await store.write(blobKey(digest), source, { signal });
      source.free();
    } catch (error) {
      if (!isOciError(error, 'DIGEST_INVALID')) throw error;
      result.corrupt.push(digest); // the images that name it fail below, the others do not
    }
  });
}

function failed({ name, descriptor }: LayoutImage, error: string, missing: string[] = []): ImportedImage {
  return { name: name ?? descriptor.digest, digest: descriptor.digest, outcome: 'failed', missing, error };
}

/** Writes the manifests of an image whose blobs are stored, and then the records that name it. */
async function importImage(
  image: LayoutImage,
  tree: Tree,
  { store, locate, signal, places }: ImportOptions & { places: Map<Digest, Repository[]> },
): Promise<ImportedImage> {
  const place = locate(image);
  if (place === undefined) {
    return failed(
      image,
      image.name === undefined
        ? 'the file gives it no name: give one with --name'
        : 'no upstream has its host: give another name with --name',
    );
  }
  const { repository, reference } = place;
  const absent: string[] = [];
  for (const digest of tree.blobs.keys()) if ((await store.stat(blobKey(digest), { signal })) === undefined) absent.push(digest);
  if (absent.length > 0) return failed(image, `the file does not hold all of it`, absent);
  await writeTree(tree, { repository, store, signal });
  for (const { descriptor } of tree.manifests) places.set(descriptor.digest, [...(places.get(descriptor.digest) ?? []), repository]);
  const { digest } = image.descriptor;
  if (!isDigest(reference)) {
    await writeRecord(store, tagKey(repository, reference), {
      record: { digest, checkedAt: new Date().toISOString(), imported: true },
      signal,
    });
  }
  return { name: image.name ?? digest, digest, outcome: tree.missing.length === 0 ? 'imported' : 'sparse', missing: tree.missing };
}
