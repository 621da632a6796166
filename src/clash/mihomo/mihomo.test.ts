import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { temporaryDirectory } from '../../../test/support/temporary.ts';
import { toolPath } from '../../../test/tools/tools.ts';
import { createLog } from '../../telemetry/log.ts';
import { createRedactor } from '../subscription/redact.ts';
import { createMihomo } from './mihomo.ts';

test('if mihomo is killed while it tests a config, the config is not blamed', async () => {
  await using temporary = await temporaryDirectory();
  const binary = join(temporary.path, 'mihomo.mjs');
  const real = JSON.stringify(await toolPath('mihomo'));
  // The first test is killed; everything else is mihomo itself.
  await writeFile(
    binary,
    `#!${process.execPath}
    import { mkdirSync } from 'node:fs';
    try {
      if (process.argv[2] === '-t') {
        mkdirSync(import.meta.dirname + '/first');
        process.kill(process.pid, 'SIGKILL');
      }
    } catch {}
    process.execve(${real}, ['mihomo', ...process.argv.slice(2)]);`,
    { mode: 0o700 },
  );
  const log = await createLog({ level: 'error', readable: false }, process.stderr);
  const mihomo = await createMihomo({ binary, directory: temporary.path, log, redactor: createRedactor(), env: {} });
  const config = join(temporary.path, 'config.json');
  await writeFile(config, JSON.stringify({ rules: ['MATCH,REJECT'] }));
  assert.equal(await mihomo.test(config), undefined);
  await writeFile(config, JSON.stringify({ rules: ['MATCH,nowhere'] }));
  assert.match((await mihomo.test(config)) ?? '', /nowhere/);
});
