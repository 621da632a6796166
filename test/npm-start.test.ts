import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { accepts, startProcess } from './support/process.ts';
import { freePort, temporaryDirectory } from './support/temporary.ts';

async function descendants(pid: number): Promise<number[]> {
  const children = (await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')).split(' ').filter(Boolean).map(Number);
  return [...children, ...(await Promise.all(children.map(descendants))).flat()];
}

test('npm start serves with the defaults, and stopping npm stops the registry', async () => {
  await using directory = await temporaryDirectory();
  const address = `127.0.0.1:${await freePort()}`;
  const keys = [`listen=${address}`, 'admin=127.0.0.1:0', `storage.filesystem.directory=${directory.path}`];
  await using npm = await startProcess({
    command: 'npm',
    args: ['start', '--', ...keys.flatMap((key) => ['--set', `registry.${key}`])],
    cwd: join(import.meta.dirname, '..'),
    ready: () => accepts(address),
  });
  assert.equal((await fetch(`http://${address}/v2/`)).status, 200);
  const below = await descendants(npm.pid);
  await npm.stop();
  try {
    assert.match(npm.output(), /stopping/);
    assert.equal(await accepts(address), false);
  } finally {
    for (const pid of below) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        continue; // it has ended
      }
    }
  }
});
