import assert from 'node:assert/strict';
import { stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { temporaryDirectory } from '../../test/support/temporary.ts';
import { checkWritable } from '../agent/check-node.ts';
import { openCopies } from '../clash/subscription/copies.ts';
import { filesystem } from '../store/filesystem/filesystem.ts';
import { makeDirectory } from './make-directory.ts';

test('a directory is created with its parents; an existing one stays; a file in its place is an error', async () => {
  await using temporary = await temporaryDirectory();
  const path = join(temporary.path, 'a/b/c');
  await Promise.all([makeDirectory(path), makeDirectory(path), makeDirectory(join(temporary.path, 'a/b/d'))]);
  await makeDirectory(path);
  assert.ok((await stat(path)).isDirectory());
  const file = join(path, 'file');
  await writeFile(file, '');
  await assert.rejects(makeDirectory(file), { code: 'EEXIST' });
  await assert.rejects(makeDirectory(join(file, 'd')), { code: 'ENOTDIR' });
});

test('where no directory can be created, every caller gets an error at once', { timeout: 30_000 }, async () => {
  await assert.rejects(makeDirectory('/proc/nowhere/a/b'), { code: 'ENOENT' });
  await assert.rejects(filesystem({ directory: '/proc/nowhere' }), { code: 'UNAVAILABLE' });
  assert.match(
    (await checkWritable('/proc/nowhere/certs.d'))[0]?.message ?? '',
    /^\/proc\/nowhere\/certs\.d cannot be written \(ENOENT\): mount/,
  );
  await assert.rejects(openCopies('/proc/nowhere/clash', '/proc/nowhere'), { code: 'ENOENT' });
});
