import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { temporaryDirectory } from './temporary.ts';

const run = promisify(execFile);

/** A volume of so many MiB. @throws Error: it is made with mount, which needs root */
export async function smallVolume(size: number) {
  const directory = await temporaryDirectory();
  await run('mount', ['-t', 'tmpfs', '-o', `size=${size}m`, 'tmpfs', directory.path]);
  let times = 0;
  return {
    path: directory.path,
    /** Bytes. */
    async room() {
      const { bavail, bsize } = await statfs(directory.path);
      return bavail * bsize;
    },
    async fill() {
      const { bavail, bsize } = await statfs(directory.path);
      await writeFile(join(directory.path, `ballast-${++times}`), Buffer.alloc(bavail * bsize)).catch((error: NodeJS.ErrnoException) =>
        assert.equal(error.code, 'ENOSPC'),
      );
    },
    async [Symbol.asyncDispose]() {
      await run('umount', ['--lazy', directory.path]);
      await directory[Symbol.asyncDispose]();
    },
  };
}
