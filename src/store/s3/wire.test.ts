import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer, request as httpRequest } from 'node:http';
import { connect, type AddressInfo, type Socket } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { makeCertificate } from '../../../test/support/certificate.ts';
import { captureLog } from '../../../test/support/log.ts';
import { openS3 } from '../../../test/support/open-s3.ts';
import { startScriptedS3, xml, type S3Request } from '../../../test/support/scripted-s3.ts';
import { temporaryDirectory } from '../../../test/support/temporary.ts';
import { digestOf } from '../../oci/digest.ts';
import { blobKey } from '../keys.ts';
import { bytesSource } from '../store.ts';
import type { S3Options } from './options.ts';

// The effect of each configuration key on the requests, as a server sees them.

const signal = AbortSignal.timeout(120_000);
const content = Buffer.from('content');

/** The requests of one write. */
async function written(options: Partial<S3Options>, bytes = content): Promise<S3Request[]> {
  await using server = await startScriptedS3();
  const store = openS3(server, options);
  await store.write('v1/object', bytesSource(bytes), { signal });
  await store.close();
  return server.requests;
}

test('serverSideEncryption, kmsKeyId, storageClass and acl stand in every PUT', async () => {
  const [plain] = await written({});
  assert.equal(plain?.headers['x-amz-server-side-encryption'], undefined);
  const [aes] = await written({ serverSideEncryption: 'AES256', storageClass: 'STANDARD_IA', acl: 'bucket-owner-full-control' });
  assert.equal(aes?.headers['x-amz-server-side-encryption'], 'AES256');
  assert.equal(aes.headers['x-amz-storage-class'], 'STANDARD_IA');
  assert.equal(aes.headers['x-amz-acl'], 'bucket-owner-full-control');
  const [kms] = await written({ serverSideEncryption: 'aws:kms', kmsKeyId: 'key-1' });
  assert.equal(kms?.headers['x-amz-server-side-encryption'], 'aws:kms');
  assert.equal(kms.headers['x-amz-server-side-encryption-aws-kms-key-id'], 'key-1');
});

test('objects larger than partSize are uploaded in parts, with the same attributes', async () => {
  const MIB = 2 ** 20;
  const bytes = Buffer.alloc(11 * MIB, 7);
  const [begun, ...rest] = await written({ partSize: 5 * MIB, serverSideEncryption: 'AES256', storageClass: 'GLACIER_IR' }, bytes);
  assert.equal(begun?.path.split('?')[1]?.startsWith('uploads'), true);
  assert.equal(begun.headers['x-amz-server-side-encryption'], 'AES256');
  assert.equal(begun.headers['x-amz-storage-class'], 'GLACIER_IR');
  const parts = rest.filter(({ method }) => method === 'PUT');
  assert.deepEqual(
    parts.map(({ query, body }) => [query.get('partNumber'), query.get('uploadId'), body.length]),
    [
      ['1', 'upload-1', 5 * MIB],
      ['2', 'upload-1', 5 * MIB],
      ['3', 'upload-1', MIB],
    ],
  );
  assert.equal((await written({ partSize: 5 * MIB }, bytes.subarray(0, 5 * MIB))).length, 1, 'a part of the same size is not split');
});

test('a PUT carries the SHA-256 of its content, of a blob by its name', async () => {
  await using server = await startScriptedS3();
  const store = openS3(server);
  const digest = digestOf(content);
  const { bytes: _, ...streamed } = bytesSource(content);
  await store.write(blobKey(digest), streamed, { signal });
  await store.write('v1/record', bytesSource(content), { signal });
  await store.close();
  const expected = Buffer.from(digest.slice('sha256:'.length), 'hex').toString('base64');
  for (const { headers } of server.requests) assert.equal(headers['x-amz-checksum-sha256'], expected);
});

test('userAgent and sessionToken stand in every request', async () => {
  const [request] = await written({
    userAgent: 'cluster-one',
    credentials: () => Promise.resolve({ accessKeyId: 'id', secretAccessKey: 'secret', sessionToken: 'token' }),
  });
  assert.match(request?.headers['user-agent'] ?? '', /cluster-one/);
  assert.equal(request?.headers['x-amz-security-token'], 'token');
});

test('profile takes the keys from the AWS files, and a role is assumed with them', async () => {
  await using temporary = await temporaryDirectory();
  await using server = await startScriptedS3();
  const file = join(temporary.path, 'credentials');
  await writeFile(file, '[team]\naws_access_key_id = profile-id\naws_secret_access_key = profile-secret\n');
  // oxlint-disable-next-line node/no-process-env -- the SDK's own chain reads it
  Object.assign(process.env, { AWS_SHARED_CREDENTIALS_FILE: file });
  const store = openS3(server, { credentials: undefined, profile: 'team' });
  await store.stat('v1/object', { signal });
  await store.close();
  assert.match(server.requests[0]?.headers.authorization ?? '', /Credential=profile-id\//);

  await using tokens = await startScriptedS3();
  const keys = '<AccessKeyId>role-id</AccessKeyId><SecretAccessKey>role-secret</SecretAccessKey><SessionToken>role-token</SessionToken>';
  const expiration = new Date(Date.now() + 3_600_000).toISOString();
  tokens.behave = () =>
    xml(
      200,
      `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>${keys}<Expiration>${expiration}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`,
    );
  const role = { arn: 'arn:aws:iam::123456789012:role/images', externalId: 'agreed', endpoint: tokens.url };
  const other = openS3(server, { credentials: undefined, profile: 'team', role });
  server.requests.length = 0;
  await other.stat('v1/object', { signal });
  await other.stat('v1/object', { signal });
  await other.close();
  assert.equal(tokens.requests.length, 1, 'the role is assumed once');
  const asked = new URLSearchParams(String(tokens.requests[0]?.body));
  assert.equal(asked.get('RoleArn'), role.arn);
  assert.equal(asked.get('ExternalId'), 'agreed');
  assert.match(tokens.requests[0]?.headers.authorization ?? '', /Credential=profile-id\//);
  assert.match(server.requests[0]?.headers.authorization ?? '', /Credential=role-id\//);
  assert.equal(server.requests[0]?.headers['x-amz-security-token'], 'role-token');
});

test('an S3 with a certificate of a private authority is used with ca or insecureSkipVerify, and refused without', async () => {
  await using temporary = await temporaryDirectory();
  const { certificate, key } = await makeCertificate(temporary.path);
  await using server = await startScriptedS3({ key: await readFile(key, 'utf8'), cert: await readFile(certificate, 'utf8') });
  const refusing = openS3(server);
  await assert.rejects(refusing.stat('v1/object', { signal }), /set storage\.s3\.ca to its certificate authority/);
  await refusing.close();
  for (const options of [{ ca: certificate }, { insecureSkipVerify: true }]) {
    const store = openS3(server, options);
    await store.write('v1/object', bytesSource(content), { signal });
    assert.equal((await store.stat('v1/object', { signal }))?.size, content.length);
    const { head } = await store.presign('v1/object', 60_000);
    assert.equal((await store.stat('v1/object', { signal, by: head }))?.size, content.length);
    await store.close();
  }
});

interface Proxy extends AsyncDisposable {
  url: string;
  /** METHOD and the target: a URL, or HOST:PORT of a tunnel. */
  asked: string[];
}

/** An HTTP proxy that forwards plain requests and tunnels to loopback, and only records other
 *  tunnels. */
async function startProxy(): Promise<Proxy> {
  const asked: string[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((request, response) => {
    asked.push(`${request.method} ${request.url}`);
    const inner = httpRequest(request.url ?? '', { method: request.method, headers: request.headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    });
    request.pipe(inner);
  });
  server.on('connect', ({ url = '' }, socket: Socket) => {
    asked.push(`CONNECT ${url}`);
    const [host, port] = url.split(':');
    sockets.add(socket);
    socket.on('error', () => undefined);
    if (host !== '127.0.0.1') {
      socket.end('HTTP/1.1 403 Forbidden\r\n\r\n');
      return;
    }
    const inner = connect(Number(port), host, () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n');
      socket.pipe(inner).pipe(socket);
    });
    sockets.add(inner);
    inner.on('error', () => undefined);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

test('every request goes through the proxy: plain ones by their URL, TLS by a tunnel', async () => {
  await using temporary = await temporaryDirectory();
  await using proxy = await startProxy();
  const { certificate, key } = await makeCertificate(temporary.path);
  await using plain = await startScriptedS3();
  await using secure = await startScriptedS3({ key: await readFile(key, 'utf8'), cert: await readFile(certificate, 'utf8') });
  for (const [server, expected] of [
    [plain, `${plain.url}/images/v1/object`],
    [secure, `CONNECT ${secure.url.replace('https://', '')}`],
  ] as const) {
    proxy.asked.length = 0;
    const store = openS3(server, { proxy: proxy.url, ca: certificate });
    await store.write('v1/object', bytesSource(content), { signal });
    const { head } = await store.presign('v1/object', 60_000);
    assert.equal((await store.stat('v1/object', { signal, by: head }))?.size, content.length);
    await store.close();
    assert.ok(proxy.asked.length > 0);
    for (const line of proxy.asked) assert.ok(line.includes(expected), `${line} includes ${expected}`);
    assert.ok(server.requests.length >= 2);
  }
});

test('dualStack, fips and accelerate choose the endpoint of Amazon S3', async () => {
  await using proxy = await startProxy();
  for (const [options, host] of [
    [{}, 'images.s3.eu-central-1.amazonaws.com:443'],
    [{ dualStack: true }, 'images.s3.dualstack.eu-central-1.amazonaws.com:443'],
    [{ accelerate: true }, 'images.s3-accelerate.amazonaws.com:443'],
    [{ fips: true, region: 'us-east-2' }, 'images.s3-fips.us-east-2.amazonaws.com:443'],
  ] as const) {
    proxy.asked.length = 0;
    const store = openS3({ url: '' }, { endpoint: undefined, forcePathStyle: false, proxy: proxy.url, region: 'eu-central-1', ...options });
    await assert.rejects(store.stat('v1/object', { signal }), { code: 'UNAVAILABLE' });
    await store.close();
    assert.equal(proxy.asked[0], `CONNECT ${host}`);
  }
});

test('requests and presigned URLs are signed by the clock of S3', async () => {
  await using server = await startScriptedS3();
  const { log, entries } = await captureLog();
  const store = openS3(server, { log });
  server.ahead = 3 * 3_600_000;
  await store.write('v1/object', bytesSource(content), { signal });
  await store.stat('v1/object', { signal });
  const dateOf = (text: string | undefined): number => {
    const [, year, month, day, hours, minutes, seconds] = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(text ?? '') ?? [];
    return Date.parse(`${year}-${month}-${day}T${hours}:${minutes}:${seconds}Z`);
  };
  const isNear = (actual: number) => Math.abs(actual - (Date.now() + server.ahead)) < 30_000;
  assert.ok(isNear(dateOf(server.requests.at(-1)?.headers['x-amz-date'] as string)));
  const { get } = await store.presign('v1/object', 60_000);
  assert.ok(isNear(dateOf(new URL(get).searchParams.get('X-Amz-Date') ?? '')));
  assert.deepEqual(
    entries().map(({ event }) => event),
    ['s3-clock-skew'],
  );
  await store.close();
});
