import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { toolPath } from '../../../test/tools/tools.ts';
import { temporaryDirectory } from '../../../test/support/temporary.ts';
import { createEntryReader, type EntryReader } from './entry-reader.ts';

const resources = new AsyncDisposableStack();
after(() => resources.disposeAsync());

async function start(): Promise<EntryReader> {
  const { path } = resources.use(await temporaryDirectory());
  return createEntryReader({ binary: await toolPath('mihomo'), directory: path, env: {} });
}

/** Starts mihomo through a script: it first runs `before`, in which `home` is mihomo's home. */
async function startBehind(before: string): Promise<EntryReader> {
  const { path } = resources.use(await temporaryDirectory());
  const binary = join(path, 'mihomo.mjs');
  const imports = `import { createServer } from 'node:net';\nimport { mkdirSync } from 'node:fs';\n`;
  const then = `process.execve(${JSON.stringify(await toolPath('mihomo'))}, ['mihomo', ...process.argv.slice(2)]);\n`;
  const home = `const home = process.argv[3];\n`;
  await writeFile(binary, `#!${process.execPath}\n${imports}${home}${before}\n${then}`, { mode: 0o700 });
  return createEntryReader({ binary, directory: path, env: {} });
}

const STARTED = `console.log('initial proxy provider p error');`;

const base64 = (text: string) => Buffer.from(text).toString('base64');
const ss = (name: string, cipher = 'aes-128-gcm') => `ss://${base64(`${cipher}:pw`)}@h.example:1#${name}`;
const node = (name: string, more = {}) => ({
  name,
  type: 'ss',
  server: 'h.example',
  port: 1,
  cipher: 'aes-128-gcm',
  password: 'pw',
  ...more,
});

test('mihomo itself decides which nodes cannot be used, and their type', async () => {
  const reader = await start();
  const nodes = Array.from({ length: 600 }, (_, index) => node(`n${index}`, index % 97 === 3 ? { cipher: 'salsa20' } : {}));
  const odd = Array.from({ length: 300 }, (_, index) => node(`q${index}`, { type: 'quantum' }));
  const verdicts = await reader.readNodes([...nodes, ...odd, node('a'), node('a', { port: 'x' }), node('b', { password: '\x7F' })]);
  const bad = verdicts.slice(0, 600).flatMap((verdict, index) => (verdict === undefined ? [] : [index]));
  assert.deepEqual(bad, [3, 100, 197, 294, 391, 488, 585]);
  assert.match(verdicts[3] ?? '', /unknown method: salsa20/);
  assert.ok(verdicts.slice(600, 900).every((verdict) => verdict?.includes('quantum') === true));
  assert.deepEqual([verdicts[900], verdicts[901] === undefined, verdicts[902]], [undefined, false, undefined]);
});

test('mihomo itself decides which links it cannot use; base64 links that it skips are repaired', async () => {
  const reader = await start();
  const links = Array.from({ length: 300 }, (_, index) => ss(`n${index}`, index === 150 ? 'salsa20' : undefined));
  const old = `ss://${base64('aes-128-gcm:pwd@h.example:11')}#old`;
  const others = ['juicity://u:p@h.example:1#j', 'snell://p@h.example:1#s', 'vless://u@h.example?type=tcp', `ss://${base64('x')}`, old];
  assert.ok(old.includes('='));
  const readings = await reader.readLinks([...links, ...others]);
  const bad = readings.flatMap((reading, index) => ('problem' in reading ? [index] : []));
  assert.deepEqual(bad, [150, 300, 301, 302, 303]);
  assert.match(JSON.stringify(readings[150]), /unknown method: salsa20/);
  assert.match(JSON.stringify(readings[300]), /does not support such links/);
  assert.deepEqual(readings.at(-1), { link: `ss://${Buffer.from('aes-128-gcm:pwd').toString('base64url')}@h.example:11#old` });
});

test('if the socket of mihomo opens later than its log says, no node is blamed', async () => {
  const reader = await startBehind(`${STARTED} await new Promise((resolve) => setTimeout(resolve, 500));`);
  assert.deepEqual(await reader.readNodes([node('late')]), [undefined]);
});

test('if mihomo closes the connection or is killed, no node is blamed, and the nodes are read again', async () => {
  for (const fault of ['socket.destroy()', `process.kill(process.pid, 'SIGKILL')`]) {
    const server = `createServer((socket) => void socket.once('data', () => ${fault})).listen(home + '/c.sock')`;
    const first = `let first = true; try { mkdirSync(import.meta.dirname + '/first'); } catch { first = false; }
      if (first) { ${server}; ${STARTED} await new Promise(() => undefined); }`;
    const reader = await startBehind(first);
    await assert.rejects(reader.readNodes([node('a')]), /does not answer/, fault);
    assert.deepEqual(await reader.readNodes([node('a')]), [undefined], fault);
  }
});

test('a node that makes mihomo exit is named', async () => {
  const server = `createServer((socket) => void socket.once('data', () => process.exit(2))).listen(home + '/c.sock')`;
  const reader = await startBehind(`${server}; ${STARTED} await new Promise(() => undefined);`);
  assert.deepEqual(await reader.readNodes([node('a')]), ['mihomo crashes when it reads this']);
});
