import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { copyFile, writeFile } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import { connect as connectPlain } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from 'node:tls';
import { promisify } from 'node:util';
import { captureLog } from '../../test/support/log.ts';
import { openSilently, talk } from '../../test/support/raw-http.ts';
import { temporaryDirectory } from '../../test/support/temporary.ts';
import { debianTool } from '../../test/tools/tools.ts';
import { isOciError } from '../oci/error.ts';
import { listen } from './listen.ts';
import { followTls, loadTls } from './tls.ts';

const run = promisify(execFile);

async function makePair(directory: string, name: string): Promise<{ certFile: string; keyFile: string }> {
  const certFile = join(directory, `${name}.crt`);
  const keyFile = join(directory, `${name}.key`);
  const subject = ['-subj', `/CN=${name}`, '-days', '2', '-nodes'];
  await run(await debianTool('openssl'), [
    'req',
    '-x509',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-keyout',
    keyFile,
    '-out',
    certFile,
    ...subject,
  ]);
  return { certFile, keyFile };
}

/** The common name of the certificate that a new connection gets. */
async function peer(port: number): Promise<string> {
  const socket = connect({ port, host: '127.0.0.1', rejectUnauthorized: false });
  await once(socket, 'secureConnect');
  const { subject } = socket.getPeerCertificate();
  socket.destroy();
  return String(subject['CN']);
}

test('HTTPS with a certificate that follows its files, without a cut connection', async () => {
  await using folder = await temporaryDirectory();
  const [first, second] = [await makePair(folder.path, 'first'), await makePair(folder.path, 'second')];
  const files = await makePair(folder.path, 'mounted');
  const use = async (from: typeof files) => {
    await copyFile(from.certFile, files.certFile);
    await copyFile(from.keyFile, files.keyFile);
  };
  await use(first);
  const captured = await captureLog();
  const { log } = captured;
  const tls = await loadTls(files);
  await using listener = await listen({
    address: { host: '127.0.0.1', port: 0 },
    tls,
    log,
    handler: (request, response) => void response.end(`hello ${request.url}`),
  });
  const { port } = listener.address;
  const stop = new AbortController();
  followTls(files, tls, { use: (pair) => listener.setCertificate(pair), log, signal: stop.signal, interval: 30 });
  assert.match(listener.url, /^https:/);
  assert.equal(await peer(port), 'first');

  const kept = connect({ port, host: '127.0.0.1', rejectUnauthorized: false });
  await once(kept, 'secureConnect');

  await writeFile(files.certFile, 'no certificate');
  await sleep(200);
  assert.equal(await peer(port), 'first', 'the last good one stays');
  await copyFile(second.certFile, files.certFile); // the key is still the other one's
  await sleep(200);
  assert.equal(await peer(port), 'first');
  await use(second);
  for (let turn = 0; turn < 100 && (await peer(port)) !== 'second'; turn++) await sleep(50);
  assert.equal(await peer(port), 'second');
  stop.abort();

  kept.write('GET /kept HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
  assert.match(Buffer.concat((await kept.toArray()) as Buffer[]).toString(), /hello \/kept$/);
  assert.doesNotMatch(JSON.stringify(captured.entries()), /PRIVATE KEY/);
});

test('plain HTTP, garbage and silence on a TLS port harm no other client, and do not delay a drain', async () => {
  await using folder = await temporaryDirectory();
  const tls = await loadTls(await makePair(folder.path, 'own'));
  const { log } = await captureLog();
  await using listener = await listen({
    address: { host: '127.0.0.1', port: 0 },
    tls,
    log,
    handler: (_request, response) => void response.end(),
  });
  const { port } = listener.address;
  await talk(port, 'GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  await talk(port, Buffer.alloc(500, 7));
  assert.equal(await peer(port), 'own');
  const silent = await openSilently(port, '');
  const started = performance.now();
  await listener.drain(300);
  assert.ok(performance.now() - started < 5_000);
  silent.destroy();
});

test('a client that never completes its TLS handshake is disconnected as early as one that sends no headers', async () => {
  await using folder = await temporaryDirectory();
  const tls = await loadTls(await makePair(folder.path, 'own'));
  const { log } = await captureLog();
  const handler = (_request: unknown, response: ServerResponse) => void response.end();
  await using listener = await listen({ address: { host: '127.0.0.1', port: 0 }, tls, log, handler, limits: { headers: 300 } });
  const started = performance.now();
  const silent = connectPlain(listener.address.port, '127.0.0.1').resume();
  await once(silent, 'close');
  assert.ok(performance.now() - started < 10_000);
});

test('the error about an unusable certificate names its files, never its content', async () => {
  await using folder = await temporaryDirectory();
  const [one, other] = [await makePair(folder.path, 'one'), await makePair(folder.path, 'other')];
  const broken = join(folder.path, 'broken.crt');
  await writeFile(broken, 'x');
  for (const files of [
    { certFile: join(folder.path, 'absent.crt'), keyFile: one.keyFile },
    { certFile: broken, keyFile: one.keyFile },
    { certFile: one.certFile, keyFile: other.keyFile },
  ]) {
    await assert.rejects(
      loadTls(files),
      (error) => isOciError(error, 'UNAVAILABLE') && error.message.includes(files.certFile) && !error.message.includes('PRIVATE'),
    );
  }
});
