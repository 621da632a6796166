import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { test } from 'node:test';
import { temporaryDirectory } from '../../../test/support/temporary.ts';
import { createTemporaryDirectory } from './temporary.ts';

/** A process that holds a temporary directory in a separate PID namespace, as a container does. */
async function startContainer(directory: string) {
  const script = `
    const { createTemporaryDirectory } = await import(${JSON.stringify(import.meta.resolve('./temporary.ts'))});
    console.log((await createTemporaryDirectory(${JSON.stringify(directory)})).path);
    setInterval(() => undefined, 1000);`;
  const node = [process.execPath, '--input-type=module', '--eval', script];
  const flags = ['--user', '--map-root-user', '--pid', '--fork', '--kill-child'];
  const child = spawn('unshare', [...flags, ...node], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  return {
    path: String(line).trim(),
    async kill() {
      child.kill('SIGKILL'); // its child goes with it
      await once(child, 'close');
    },
  };
}

test('promise 14: partial files of a killed container are removed when the next one starts, but not those of a running one', async () => {
  await using temporary = await temporaryDirectory();
  const container = await startContainer(temporary.path);
  await writeFile(join(container.path, 'spool'), new Uint8Array(1000));

  const beside = await createTemporaryDirectory(temporary.path);
  assert.deepEqual(await readdir(container.path), ['spool'], 'it runs');
  await beside.close();

  await container.kill();
  const next = await createTemporaryDirectory(temporary.path);
  assert.deepEqual(
    (await readdir(join(temporary.path, '.tmp'))).map((name) => join(temporary.path, '.tmp', name)),
    [next.path],
  );
  await next.close();
  assert.deepEqual(await readdir(join(temporary.path, '.tmp')), []);
});

test('promise 20: files that a later process can use go to it, and only to one process; all others are removed', async () => {
  await using temporary = await temporaryDirectory();
  const container = await startContainer(temporary.path);
  await mkdir(join(container.path, 'spool'));
  for (const name of ['one', 'two']) await writeFile(join(container.path, 'spool', name), name);
  await writeFile(join(container.path, 'half-written'), '');
  await container.kill();

  const next = await Promise.all([1, 2].map(() => createTemporaryDirectory(temporary.path, { inherited: 'spool' })));
  const taken = await Promise.all(
    next.map(async ({ path }) => (await readdir(path, { recursive: true })).filter((name) => name !== 'spool')),
  );
  assert.deepEqual(taken.flat().sort(), ['spool/one', 'spool/two']);
  await Promise.all(next.map((one) => one.close()));
  const left = (await readdir(join(temporary.path, '.tmp'), { recursive: true })).map((path) => basename(path));
  assert.deepEqual(
    left.filter((name) => ['one', 'two', 'half-written'].includes(name)).sort(),
    ['one', 'two'],
    'they stay for the next one',
  );
});
