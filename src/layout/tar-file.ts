import type { FileHandle } from 'node:fs/promises';
import { Writable } from 'node:stream';
import { Header, Pax } from 'tar';
import { OciError } from '../oci/error.ts';

/** One file of a tar archive, and the position of its bytes. */
export interface TarEntry {
  /** As written, without a leading `./`. */
  path: string;
  /** `File`, `Directory`, `SymbolicLink`, `Link` or another of the types of pax(1). */
  type: string;
  /** The position of its first byte in the archive. */
  offset: number;
  /** Bytes. */
  size: number;
}

const BLOCK_SIZE = 512;
const READ_SIZE = 64 * 1024;
/** The maximum size of a pax header or a GNU long name, in bytes: paths in image layouts have about
 *  80. */
const MAX_EXTENSION_SIZE = 64 * 1024;
const MAX_ENTRIES = 1_000_000;
const GZIP_MAGIC = 0x1f8b;
const ZSTD_MAGIC = 0x28b52ffd;
/** Header types that describe the next entry. */
const EXTENSIONS: readonly string[] = ['ExtendedHeader', 'OldExtendedHeader', 'NextFileHasLongPath', 'OldGnuLongPath'];

/** Lists an archive without reading the contents of its files (ustar, pax and GNU headers: pax(1),
 *  tar(5)).
 *  @throws OciError MANIFEST_INVALID: it is not a tar archive, is compressed, or ends early */
export async function listTar(file: FileHandle, signal: AbortSignal): Promise<TarEntry[]> {
  const { size } = await file.stat();
  await refuseCompressed(file);
  const reader = createBlockReader(file);
  const entries: TarEntry[] = [];
  let extension: Pax | undefined;
  for (let position = 0; position + BLOCK_SIZE <= size;) {
    signal.throwIfAborted();
    const header = readHeader(await reader.read(position, BLOCK_SIZE), { position, extension });
    if (header.nullBlock) return entries;
    const entry = { type: header.type as string, offset: position + BLOCK_SIZE, size: header.size ?? 0 };
    if (entry.offset + entry.size > size) throw endsEarly(header.path ?? '', size);
    position = entry.offset + Math.ceil(entry.size / BLOCK_SIZE) * BLOCK_SIZE;
    if (EXTENSIONS.includes(entry.type)) {
      if (entry.size > MAX_EXTENSION_SIZE)
        throw invalid(`a header of ${entry.size} bytes describes an entry; ${MAX_EXTENSION_SIZE} are allowed`);
      extension = readExtension(entry.type, await reader.read(entry.offset, entry.size), extension);
      continue;
    }
    extension = undefined;
    if (entry.type === 'GlobalExtendedHeader') continue;
    if (entries.length === MAX_ENTRIES) throw invalid(`it has more than ${MAX_ENTRIES} entries`);
    entries.push({ path: (header.path ?? '').replace(/^(?:\.\/)+/, ''), ...entry });
  }
  throw endsEarly(entries.at(-1)?.path ?? '', size);
}

async function refuseCompressed(file: FileHandle): Promise<void> {
  const { buffer } = await file.read(Buffer.alloc(4), 0, 4, 0);
  if (buffer.readUInt16BE(0) === GZIP_MAGIC) throw invalid('it is compressed by gzip: decompress it first (gunzip)');
  if (buffer.readUInt32BE(0) === ZSTD_MAGIC) throw invalid('it is compressed by zstd: decompress it first (unzstd)');
}

function readHeader(block: Buffer, { position, extension }: { position: number; extension: Pax | undefined }): Header {
  const header = new Header(block, 0, extension);
  if (!header.nullBlock && !header.cksumValid) {
    throw invalid(position === 0 ? 'it is not a tar archive' : `the header at byte ${position} is damaged`);
  }
  return header;
}

function readExtension(type: string, content: Buffer, before: Pax | undefined): Pax {
  if (type.endsWith('ExtendedHeader')) return Pax.parse(content.toString('utf8'), before);
  const end = content.indexOf(0);
  const path = content.toString('utf8', 0, end === -1 ? content.length : end);
  return new Pax(before?.size === undefined ? { path } : { path, size: before.size });
}

function createBlockReader(file: FileHandle) {
  let buffer = Buffer.alloc(0);
  let start = 0;
  return {
    /** @throws OciError MANIFEST_INVALID: the file has become shorter */
    async read(position: number, length: number): Promise<Buffer> {
      if (position < start || position + length > start + buffer.length) {
        const next = Buffer.alloc(Math.max(length, READ_SIZE));
        const { bytesRead } = await file.read(next, 0, next.length, position);
        buffer = next.subarray(0, bytesRead);
        start = position;
      }
      if (position + length > start + buffer.length) throw invalid('it ends early');
      return buffer.subarray(position - start, position - start + length);
    },
  };
}

function endsEarly(path: string, size: number): OciError {
  return invalid(`it ends early, after ${size} bytes${path === '' ? '' : `, in or behind ${JSON.stringify(path)}`}: copy it again`);
}

function invalid(message: string): OciError {
  return new OciError('MANIFEST_INVALID', `the archive cannot be read: ${message}`);
}

/** Writes an archive, one file after the other. */
export interface TarWriter {
  /** @throws Error: the size of `body` is not `size`; errors of `body` and of the file system */
  add(path: string, size: number, body: AsyncIterable<Uint8Array>): Promise<void>;
  addBytes(path: string, bytes: Uint8Array): Promise<void>;
  /** Ends the archive; the file or stream stays open. */
  end(): Promise<void>;
}

/** @param target a file, open for writing and empty, or a stream, which stays open */
export function createTarWriter(target: FileHandle | Writable): TarWriter {
  const directories = new Set<string>();
  const write =
    target instanceof Writable ? (bytes: Uint8Array) => writeToStream(target, bytes) : (bytes: Uint8Array) => writeToFile(target, bytes);

  async function makeDirectories(path: string): Promise<void> {
    const segments = path.split('/').slice(0, -1);
    for (let depth = 1; depth <= segments.length; depth++) {
      const directory = `${segments.slice(0, depth).join('/')}/`;
      if (directories.has(directory)) continue;
      directories.add(directory);
      await writeHeader(write, directory, 0);
    }
  }

  async function pad(size: number): Promise<void> {
    const rest = size % BLOCK_SIZE;
    if (rest > 0) await write(Buffer.alloc(BLOCK_SIZE - rest));
  }

  return {
    async add(path, size, body) {
      await makeDirectories(path);
      await writeHeader(write, path, size);
      let written = 0;
      for await (const chunk of body) {
        written += chunk.length;
        if (written > size) break;
        await write(chunk);
      }
      if (written !== size) throw new Error(`${path} has ${written > size ? 'more' : 'fewer'} bytes than the ${size} announced`);
      await pad(size);
    },
    async addBytes(path, bytes) {
      await makeDirectories(path);
      await writeHeader(write, path, bytes.length);
      await write(bytes);
      await pad(bytes.length);
    },
    end: () => write(Buffer.alloc(2 * BLOCK_SIZE)),
  };
}

async function writeHeader(write: (bytes: Uint8Array) => Promise<void>, path: string, size: number): Promise<void> {
  const isDirectory = path.endsWith('/');
  const type = isDirectory ? ('Directory' as const) : ('File' as const);
  const header = new Header({ path, size, type, mode: isDirectory ? 0o755 : 0o644, mtime: new Date(0), uid: 0, gid: 0 });
  // Only sizes of 8 GiB and more need a pax header: paths in a layout are short.
  if (header.encode()) await write(new Pax({ path, size }).encode());
  header.encode();
  if (header.block !== undefined) await write(header.block);
}

async function writeToFile(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += (await file.write(bytes, at)).bytesWritten;
}

/** Resolves once the stream has passed the bytes on, so that no more than these are in memory. */
function writeToStream(stream: Writable, bytes: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => stream.write(bytes, (error) => (error == null ? resolve() : reject(error))));
}
