import { createHash } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

export interface Content {
  digest: string;
  mediaType: string;
  size: number;
  bytes: Buffer;
}
export interface PlatformImage {
  architecture: string;
  manifest: Content;
  config: Content;
  layers: Content[];
}
/** A complete image, in memory. `root` is the target of its tag: the index, or the manifest of its
 *  only platform. */
export interface TestImage {
  root: Content;
  platforms: PlatformImage[];
}

export interface ImageOptions {
  /** Architectures (all of linux); one gives a plain manifest, several an index. Default: amd64 and
   *  arm64. */
  architectures?: readonly string[];
  /** Bytes of each layer's file; a layer is at most 2 KiB more. Default: two layers of 64 KiB and 1
   *  MiB. */
  layers?: readonly number[];
  /** Images of one seed are the same, byte for byte. */
  seed?: string;
  format?: 'oci' | 'docker';
  /** Random bytes do not get smaller by it. */
  gzip?: boolean;
  /** The program of the image: a static binary, in a separate first layer. */
  program?: Buffer;
  labels?: Record<string, string>;
}

const MEDIA_TYPES = {
  oci: {
    index: 'application/vnd.oci.image.index.v1+json',
    manifest: 'application/vnd.oci.image.manifest.v1+json',
    config: 'application/vnd.oci.image.config.v1+json',
    layer: 'application/vnd.oci.image.layer.v1.tar',
    gzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
  },
  docker: {
    index: 'application/vnd.docker.distribution.manifest.list.v2+json',
    manifest: 'application/vnd.docker.distribution.manifest.v2+json',
    config: 'application/vnd.docker.container.image.v1+json',
    layer: 'application/vnd.docker.image.rootfs.diff.tar',
    gzip: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
  },
};

/** Makes an image that clients unpack: its layers are tar files with one file of random bytes
 *  each. */
export function makeImage(options: ImageOptions = {}): TestImage {
  const { architectures = ['amd64', 'arm64'], format = 'oci' } = options;
  const platforms = architectures.map((architecture) => makePlatform(architecture, options));
  const types = MEDIA_TYPES[format];
  const manifests = platforms.map(({ architecture, manifest }) => ({ ...descriptor(manifest), platform: { architecture, os: 'linux' } }));
  const [only] = platforms;
  const root =
    platforms.length === 1 && only !== undefined
      ? only.manifest
      : json(types.index, { schemaVersion: 2, mediaType: types.index, manifests });
  return { root, platforms };
}

function makePlatform(architecture: string, options: ImageOptions): PlatformImage {
  const { layers: sizes = [64 * 1024, 1024 * 1024], seed = 'image', format = 'oci', gzip = false } = options;
  const types = MEDIA_TYPES[format];
  const random = sizes.map((size, n) => tar(`layer-${n}`, randomBytes(`${seed} ${architecture} ${n}`, size)));
  const files = options.program === undefined ? random : [tar('program', options.program), ...random];
  const layers = files.map((file) => (gzip ? content(types.gzip, gzipSync(file, { level: 1 })) : content(types.layer, file)));
  const config = json(types.config, {
    architecture,
    os: 'linux',
    config: {
      ...(options.program === undefined ? { Cmd: ['/layer-0'] } : { Entrypoint: ['/program'] }),
      ...(options.labels === undefined ? {} : { Labels: options.labels }),
    },
    rootfs: { type: 'layers', diff_ids: files.map(sha256) },
    history: files.map((_, n) => ({ created: '2026-01-01T00:00:00Z', created_by: `layer ${n}` })),
  });
  const manifest = json(types.manifest, {
    schemaVersion: 2,
    mediaType: types.manifest,
    config: descriptor(config),
    layers: layers.map(descriptor),
  });
  return { architecture, manifest, config, layers };
}

/** An artifact that refers to `subject` (a referrer). */
export function makeArtifact(subject: Content, artifactType: string): TestImage {
  const types = MEDIA_TYPES.oci;
  const config = content('application/vnd.oci.empty.v1+json', Buffer.from('{}'));
  const layer = content('text/plain', Buffer.from(`${artifactType} of ${subject.digest}`));
  const manifest = json(types.manifest, {
    schemaVersion: 2,
    mediaType: types.manifest,
    artifactType,
    config: descriptor(config),
    layers: [descriptor(layer)],
    subject: descriptor(subject),
  });
  return { root: manifest, platforms: [{ architecture: '', manifest, config, layers: [layer] }] };
}

/** Random bytes that depend only on `seed`. */
export function randomBytes(seed: string, size: number): Buffer {
  return createHash('shake256', { outputLength: size }).update(seed).digest();
}

export function content(mediaType: string, bytes: Buffer): Content {
  return { mediaType, digest: sha256(bytes), size: bytes.length, bytes };
}

export function sha256(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/** Pushes by the distribution specification: blobs first, then manifests, then the tag.
 *  @throws Error: the registry refused something */
export async function pushImage(url: string, repository: string, tag: string, image: TestImage, authorization?: string): Promise<void> {
  const base = `${url}/v2/${repository}`;
  const headers: Record<string, string> = authorization === undefined ? {} : { authorization };
  for (const { config, layers } of image.platforms) for (const blob of [config, ...layers]) await pushBlob(base, blob, headers);
  for (const { manifest } of image.platforms) await pushManifest(`${base}/manifests/${manifest.digest}`, manifest, headers);
  await pushManifest(`${base}/manifests/${tag}`, image.root, headers);
}

export async function pushBlob(base: string, blob: Content, headers: Record<string, string> = {}): Promise<void> {
  const begun = await expectOk(await fetch(`${base}/blobs/uploads/`, { method: 'POST', headers }));
  const location = new URL(begun.headers.get('location') ?? '', base);
  location.searchParams.set('digest', blob.digest);
  const type = { ...headers, 'content-type': 'application/octet-stream' };
  await expectOk(await fetch(location, { method: 'PUT', headers: type, body: new Uint8Array(blob.bytes) }));
}

export async function pushManifest(url: string, manifest: Content, headers: Record<string, string> = {}): Promise<void> {
  const type = { ...headers, 'content-type': manifest.mediaType };
  await expectOk(await fetch(url, { method: 'PUT', headers: type, body: new Uint8Array(manifest.bytes) }));
}

async function expectOk(response: Response): Promise<Response> {
  const text = await response.text();
  if (!response.ok) throw new Error(`${response.url}: ${response.status} ${text}`);
  return response;
}

/** Writes an OCI image layout, as `crane push` and `skopeo copy oci:` read it. */
export async function writeLayout(directory: string, image: TestImage): Promise<void> {
  const blobs = join(directory, 'blobs/sha256');
  await mkdir(blobs, { recursive: true });
  const all = image.platforms.flatMap(({ manifest, config, layers }) => [manifest, config, ...layers]);
  for (const { digest, bytes } of [...all, image.root]) await writeFile(join(blobs, digest.slice('sha256:'.length)), bytes);
  await writeFile(join(directory, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  await writeFile(join(directory, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [descriptor(image.root)] }));
}

function json(mediaType: string, document: unknown): Content {
  return content(mediaType, Buffer.from(JSON.stringify(document)));
}

function descriptor({ mediaType, digest, size }: Content): { mediaType: string; digest: string; size: number } {
  return { mediaType, digest, size };
}

/** A tar file (ustar) of one regular file. */
function tar(name: string, bytes: Buffer): Buffer {
  const header = Buffer.alloc(512);
  header.write(name, 0);
  header.write('0000755\0', 100);
  header.write('0000000\0', 108);
  header.write('0000000\0', 116);
  header.write(`${bytes.length.toString(8).padStart(11, '0')}\0`, 124);
  header.write('00000000000\0', 136);
  header.write('        0', 148); // the checksum counts as spaces; then the type: a regular file
  header.write('ustar\u000000', 257);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return Buffer.concat([header, bytes, Buffer.alloc(-bytes.length & 511), Buffer.alloc(1024)]);
}
