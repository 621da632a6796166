import assert from 'node:assert/strict';
import { access, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { captureLog } from '../../test/support/log.ts';
import { temporaryDirectory } from '../../test/support/temporary.ts';
import { checkDefaultHosts } from './check-node.ts';
import { createNodeFiles, hostFolder, hostsFiles, ownHostsFile } from './node-files.ts';

const AGENT = 'http://127.0.0.1:25000';

async function write(path: string, text = ''): Promise<void> {
  await mkdir(join(path, '..'), { recursive: true });
  await writeFile(path, text);
}

const isThere = (path: string) =>
  access(path).then(
    () => true,
    () => false,
  );

test('the folder of a host is named as containerd looks for it', () => {
  const rows: [string, string][] = [
    ['docker.io', 'docker.io'],
    ['harbor.test:8443', 'harbor.test_8443_'],
    ['[::1]:5000', '[::1]_5000_'],
  ];
  for (const [host, folder] of rows) assert.equal(hostFolder(host), folder);
});

test('promise A6: hosts.toml names the certificates next to it, which containerd would otherwise ignore', async () => {
  await using temporary = await temporaryDirectory();
  const { log } = await captureLog();
  const at = (...names: string[]) => join(temporary.path, ...names);
  for (const name of ['ca.crt', 'other.crt', 'client.cert', 'client.key', 'both.cert']) await write(at('harbor.test', name));
  await write(at('harbor.test:8443', 'ca.crt'));
  await write(at('plain.test', 'notes.txt'));
  const upstreams = [{ url: 'https://harbor.test', hosts: ['harbor.test', 'harbor.test:8443', 'plain.test'] }];
  const files = createNodeFiles(hostsFiles(temporary.path, upstreams, AGENT), log);
  await files.write();
  assert.match(
    await readFile(at('harbor.test', 'hosts.toml'), 'utf8'),
    /^server = .*\nca = \["ca\.crt", "other\.crt"\]\nclient = \["both\.cert", \["client\.cert", "client\.key"\]\]\n\n\[host\./m,
  );
  assert.match(await readFile(at('harbor.test_8443_', 'hosts.toml'), 'utf8'), /^ca = \["\.\.\/harbor\.test:8443\/ca\.crt"\]$/m);
  assert.doesNotMatch(await readFile(at('plain.test', 'hosts.toml'), 'utf8'), /^(?:ca|client) =/m);
  // A certificate that is added later is named at the next check.
  await write(at('plain.test', 'ca.crt'));
  await files.write();
  assert.match(await readFile(at('plain.test', 'hosts.toml'), 'utf8'), /^ca = \["ca\.crt"\]$/m);
  await files.remove();
  assert.ok(await isThere(at('harbor.test', 'ca.crt')));
  assert.ok(!(await isThere(at('harbor.test', 'hosts.toml'))));
});

test("promise A6: somebody else's hosts.toml in a folder HOST:PORT still counts: none is written in HOST_PORT_, which would replace it", async () => {
  await using temporary = await temporaryDirectory();
  const captured = await captureLog();
  const foreign = join(temporary.path, 'harbor.test:8443', 'hosts.toml');
  await write(foreign, 'server = "https://harbor.test:8443"\n');
  const upstreams = [{ url: 'https://harbor.test:8443', hosts: ['harbor.test:8443'] }];
  const files = createNodeFiles(hostsFiles(temporary.path, upstreams, AGENT), captured.log);
  await files.write();
  assert.ok(!(await isThere(join(temporary.path, 'harbor.test_8443_'))));
  assert.match(JSON.stringify(captured.entries()), /node-file-foreign.*harbor\.test:8443/);
});

test("the agent's own address gets a hosts.toml while _default/hosts.toml is there, and only then", async () => {
  await using temporary = await temporaryDirectory();
  const { log } = await captureLog();
  const [own, others] = [join(temporary.path, '127.0.0.1_25000_', 'hosts.toml'), join(temporary.path, '_default', 'hosts.toml')];
  const files = createNodeFiles([ownHostsFile(temporary.path, AGENT)], log);
  await files.write();
  assert.ok(!(await isThere(own)));
  assert.deepEqual(await checkDefaultHosts(temporary.path, '127.0.0.1:25000'), []);
  await write(others, 'server = "http://mirror.test"\n');
  const [problem] = await checkDefaultHosts(temporary.path, '127.0.0.1:25000');
  assert.equal(problem?.kind, 'default-hosts');
  await files.write();
  assert.match(await readFile(own, 'utf8'), /^server = "http:\/\/127\.0\.0\.1:25000"\n\n\[host\."http:\/\/127\.0\.0\.1:25000"\]$/m);
  assert.deepEqual(await checkDefaultHosts(temporary.path, '127.0.0.1:25000'), []);
  await rm(others);
  await files.write();
  assert.ok(!(await isThere(own)));
});
