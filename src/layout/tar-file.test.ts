import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, open, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { createTarWriter, listTar, type TarEntry } from './tar-file.ts';

const run = promisify(execFile);
const signal = new AbortController().signal;

async function withDirectory(work: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'tar-file-'));
  try {
    await work(directory);
  } finally {
    await rm(directory, { recursive: true });
  }
}

async function list(path: string): Promise<TarEntry[]> {
  const file = await open(path, 'r');
  try {
    return await listTar(file, signal);
  } finally {
    await file.close();
  }
}

async function writeArchive(path: string, files: Record<string, string>): Promise<void> {
  const file = await open(path, 'w');
  const tar = createTarWriter(file);
  for (const [name, content] of Object.entries(files)) await tar.addBytes(name, Buffer.from(content));
  await tar.end();
  await file.close();
}

test('GNU tar reads the written archives', () =>
  withDirectory(async (directory) => {
    const path = join(directory, 'a.tar');
    await writeArchive(path, { 'oci-layout': '{}', 'blobs/sha256/aa': 'x'.repeat(512), 'blobs/sha256/bb': 'y' });
    const { stdout } = await run('tar', ['--list', '--file', path]);
    assert.deepEqual(stdout.trim().split('\n'), ['oci-layout', 'blobs/', 'blobs/sha256/', 'blobs/sha256/aa', 'blobs/sha256/bb']);
    await run('tar', ['--extract', '--file', path, '--directory', directory]);
    const { stdout: content } = await run('cat', [join(directory, 'blobs/sha256/aa'), join(directory, 'blobs/sha256/bb')]);
    assert.equal(content, `${'x'.repeat(512)}y`);
  }));

for (const format of ['gnu', 'pax', 'ustar', 'v7']) {
  test(`archives in GNU tar's format ${format} are listed with the offset of each file`, () =>
    withDirectory(async (directory) => {
      // Longer than the 100 bytes of a plain header, if the format supports that.
      const folder = format === 'gnu' || format === 'pax' ? 'd'.repeat(180) : 'd';
      await mkdir(join(directory, folder));
      await writeFile(join(directory, folder, 'one'), 'content of one');
      const path = join(directory, 'a.tar');
      await run('tar', [`--format=${format}`, '--create', '--file', path, '--directory', directory, `./${folder}`]);
      const entry = (await list(path)).find(({ path }) => path === `${folder}/one`);
      assert.ok(entry);
      const file = await open(path, 'r');
      const { buffer } = await file.read(Buffer.alloc(entry.size), 0, entry.size, entry.offset);
      await file.close();
      assert.equal(buffer.toString(), 'content of one');
    }));
}

test('an archive that is cut anywhere is refused', () =>
  withDirectory(async (directory) => {
    const path = join(directory, 'a.tar');
    for (const size of [1, 300, 512, 700, 1024, 1536, 2000]) {
      await writeArchive(path, { 'oci-layout': '{}', 'index.json': '[]'.repeat(300) });
      await truncate(path, size);
      await assert.rejects(list(path), { code: 'MANIFEST_INVALID', message: /ends early/ }, `after ${size} bytes`);
    }
  }));

test('a file that is not a tar archive is refused with its format in the message', () =>
  withDirectory(async (directory) => {
    const path = join(directory, 'a.tar');
    await writeFile(path, Buffer.alloc(2048, 'text '));
    await assert.rejects(list(path), { code: 'MANIFEST_INVALID', message: /not a tar archive/ });
    await writeArchive(path, { file: 'x' });
    await run('gzip', [path]);
    await assert.rejects(list(`${path}.gz`), { code: 'MANIFEST_INVALID', message: /gzip/ });
  }));

test('a file of another size than announced ends the writing', () =>
  withDirectory(async (directory) => {
    const file = await open(join(directory, 'a.tar'), 'w');
    const tar = createTarWriter(file);
    async function* body() {
      yield Buffer.from('four');
    }
    await assert.rejects(tar.add('short', 5, body()), /fewer bytes/);
    await assert.rejects(tar.add('long', 3, body()), /more bytes/);
    await file.close();
  }));
