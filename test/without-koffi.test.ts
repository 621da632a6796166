import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { startAgent, startRegistry } from './support/program.ts';
import { read } from './support/reading.ts';
import { startScriptedUpstream } from './support/scripted-upstream.ts';
import { temporaryDirectory } from './support/temporary.ts';

test('registry and agent start and serve blobs without koffi, their optional dependency', async () => {
  await using directory = await temporaryDirectory();
  await using upstream = await startScriptedUpstream();
  const hook = join(directory.path, 'without-koffi.mjs');
  await writeFile(
    hook,
    `import { registerHooks } from 'node:module';
     registerHooks({ resolve(name, context, next) {
       if (name === 'koffi') throw Object.assign(new Error('Cannot find package koffi'), { code: 'ERR_MODULE_NOT_FOUND' });
       return next(name, context);
     } });`,
  );
  const env = { NODE_OPTIONS: `--import ${hook}` };
  const knows = { upstreams: { hub: { url: upstream.url } } };
  await using registry = await startRegistry(knows, { env });
  await using agent = await startAgent({ registry: registry.url }, { registry: knows }, { env });
  const bytes = Buffer.alloc(3 * 2 ** 20, 'blob');
  const digest = upstream.addBlob(bytes);
  for (const pull of ['cold', 'warm', 'warm again', 'through the agent']) {
    const { url } = pull === 'through the agent' ? agent : registry;
    const got = await read(`${url}/v2/hub/a/b/blobs/${digest}`);
    assert.deepEqual([got.digest, got.size], [digest, bytes.length], pull);
  }
  const part = await read(`${registry.url}/v2/hub/a/b/blobs/${digest}`, { range: 'bytes=1000000-2999999' });
  assert.deepEqual([part.status, part.size], [206, 2_000_000]);
});
