import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AUTHORIZATION, startHosted } from './support/hosted.ts';
import { content, makeImage, pushImage, randomBytes } from './support/image.ts';
import { statuses, talk } from './support/raw-http.ts';
import { until } from './support/until.ts';

const REPOSITORY = 'local/team/app';

test('rights apply to every spelling of a request: absolute URLs, several question marks, an empty ns', async () => {
  const everything = [{ users: ['ci'] }];
  const local = {
    hosts: ['registry.example.com'],
    push: everything,
    delete: everything,
    pull: [{ repositories: 'local/', users: ['other'] }],
  };
  await using world = await startHosted({ local });
  const { url } = world.registry;
  await pushImage(url, REPOSITORY, '1', makeImage({ seed: 'private', architectures: ['amd64'] }), AUTHORIZATION);
  await pushImage(url, 'local/local/team/app', '1', makeImage({ seed: 'other', architectures: ['amd64'] }), AUTHORIZATION);
  const ask = async (method: string, target: string, authorization?: string) => {
    const login = authorization === undefined ? '' : `Authorization: ${authorization}\r\n`;
    const { text } = await talk(Number(new URL(url).port), `${method} ${target} HTTP/1.1\r\nHost: x\r\n${login}Connection: close\r\n\r\n`);
    return statuses(text)[0];
  };
  const other = `Basic ${Buffer.from('other:other').toString('base64')}`;
  for (const path of ['manifests/1', 'tags/list', `blobs/sha256:${'0'.repeat(64)}`]) {
    for (const method of ['GET', 'HEAD']) {
      for (const target of [
        `/v2/${REPOSITORY}/${path}`,
        `http://registry/v2/${REPOSITORY}/${path}`,
        `HTTP://registry:80/v2/${REPOSITORY}/${path}`,
        `/v2/team/app/${path}?ns=registry.example.com`,
        `/v2/team/app/${path}?ns=REGISTRY.example.com`,
        `/v2/team/app/${path}?x?&ns=registry.example.com`,
        `http://registry/v2/team/app/${path}?ns=registry.example.com`,
        `/v2/${REPOSITORY}/${path}?ns=`,
        `/v2/${REPOSITORY}/${path}?x?y`,
      ]) {
        assert.equal(await ask(method, target), 401, `${method} ${target}`);
        assert.equal(await ask(method, target, other), 403, `${method} ${target}`);
      }
    }
  }
  assert.equal(await ask('GET', `http://registry/v2/${REPOSITORY}/manifests/1`, AUTHORIZATION), 200);
  assert.equal(await ask('GET', `/v2/${REPOSITORY}/manifests/1?ns=`, AUTHORIZATION), 200);
  assert.equal(await ask('GET', '/v2/local/local/team/app/manifests/1', other), 200);
  assert.equal(await ask('POST', `http://registry/v2/${REPOSITORY}/blobs/uploads/`, AUTHORIZATION), 202);
  assert.equal(await ask('GET', '/v2/team/app/manifests/1?ns=%2e%2e/', AUTHORIZATION), 400);
});

test('a login with a wrong password is refused at the first request, and the catalog is read in pages that make sense', async () => {
  await using world = await startHosted();
  const { url } = world.registry;
  const ask = async (path: string, authorization?: string, method = 'GET') =>
    (await fetch(url + path, { method, headers: authorization === undefined ? {} : { authorization } })).status;
  assert.equal(await ask('/v2/'), 200);
  assert.equal(await ask('/v2/', AUTHORIZATION), 200);
  assert.equal(await ask('/v2/', `Basic ${Buffer.from('ci:wrong').toString('base64')}`), 401);
  for (const n of ['-1', '0', '1.5', 'x', '1e3']) assert.equal(await ask(`/v2/_catalog?n=${n}`, AUTHORIZATION), 400, n);
  assert.equal(await ask('/v2/_catalog', AUTHORIZATION, 'HEAD'), 200);
  assert.equal(await ask('/v2/_catalog', AUTHORIZATION, 'POST'), 405);
});

test('a quota counts a blob once, allows pushing it again, and aborts a body that exceeds it', async () => {
  const everything = [{ users: ['ci'] }];
  await using world = await startHosted({ local: { push: everything, delete: everything, quota: { 'team/': '200KiB' } } });
  const { url } = world.registry;
  const ask = (path: string, method: string, body?: Buffer | ReadableStream) =>
    fetch(url + path, {
      method,
      headers: { authorization: AUTHORIZATION },
      ...(body === undefined ? {} : { body: body instanceof Buffer ? new Uint8Array(body) : body, duplex: 'half' as const }),
    });
  const start = async () => (await ask(`/v2/${REPOSITORY}/blobs/uploads/`, 'POST')).headers.get('location') ?? '';
  const blob = content('application/octet-stream', randomBytes('quota', 150_000));
  const first = await start();
  assert.equal((await ask(first, 'PATCH', blob.bytes)).status, 202);
  assert.equal((await ask(`${first}?digest=${blob.digest}`, 'PUT')).status, 201);
  for (let turn = 0; turn < 3; turn++) {
    assert.equal((await ask(`/v2/${REPOSITORY}/blobs/uploads/?digest=${blob.digest}`, 'POST', blob.bytes)).status, 201);
  }
  const location = await start();
  let sent = 0;
  const endless = new ReadableStream({
    pull(controller) {
      sent += 10_000;
      if (sent > 5_000_000) controller.close();
      else controller.enqueue(new Uint8Array(10_000));
    },
  });
  const refused = await ask(location, 'PATCH', endless);
  assert.equal(refused.status, 403);
  assert.equal(((await refused.json()) as { errors: { code: string }[] }).errors[0]?.code, 'DENIED');
  assert.equal((await ask(location, 'GET')).headers.get('range'), '0-0', 'nothing of it was kept');
  // Replacing existing content fits.
  assert.equal((await ask(`/v2/${REPOSITORY}/blobs/${blob.digest}`, 'DELETE')).status, 202);
  const other = content('application/octet-stream', randomBytes('another', 150_000));
  await until(async () => {
    const { status } = await ask(`/v2/${REPOSITORY}/blobs/uploads/?digest=${other.digest}`, 'POST', other.bytes);
    return status === 201;
  }, 'a deleted blob takes nothing of the quota');
});

test('a denied push is not asked for its body, and an allowed one is', async () => {
  await using world = await startHosted();
  const { url } = world.registry;
  const port = Number(new URL(url).port);
  const blob = content('application/octet-stream', randomBytes('expected', 1000));
  const ask = async (authorization: string, more = '') => {
    const head = `POST /v2/${REPOSITORY}/blobs/uploads/?digest=${blob.digest} HTTP/1.1\r\nHost: x\r\nAuthorization: ${authorization}\r\n`;
    const { text } = await talk(port, `${head}${more}Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n`, { patience: 3_000 });
    return statuses(text);
  };
  assert.deepEqual(await ask(`Basic ${Buffer.from('ci:wrong').toString('base64')}`), [401]);
  assert.deepEqual(await ask(`Basic ${Buffer.from('other:other').toString('base64')}`), [403]);
  assert.deepEqual(await ask(AUTHORIZATION, 'Content-Range: 5-2\r\n'), [416]);
  assert.deepEqual(await ask(AUTHORIZATION), [100]);
});

test('a connection on which a push was refused in the middle answers the next request, and no byte of the body is taken for one', async () => {
  await using world = await startHosted({ local: { push: [{ users: ['ci'] }], maxBlobSize: '100KiB' } });
  const { url } = world.registry;
  const head = `Host: x\r\nAuthorization: ${AUTHORIZATION}\r\n`;
  const start = async () =>
    (await fetch(`${url}/v2/${REPOSITORY}/blobs/uploads/`, { method: 'POST', headers: { authorization: AUTHORIZATION } })).headers.get(
      'location',
    );
  const smuggled = `GET /v2/smuggled HTTP/1.1\r\nHost: x\r\n\r\n`.padEnd(3_000_000, 'x');
  const bodies = [`Content-Length: ${smuggled.length}\r\n\r\n${smuggled}`];
  bodies.push(`Transfer-Encoding: chunked\r\n\r\n${smuggled.length.toString(16)}\r\n${smuggled}\r\n0\r\n\r\n`);
  for (const body of bodies) {
    const request = `PATCH ${await start()} HTTP/1.1\r\n${head}${body}`;
    const { text } = await talk(Number(new URL(url).port), `${request}GET /v2/ HTTP/1.1\r\n${head}Connection: close\r\n\r\n`);
    assert.deepEqual(statuses(text), [400, 200]);
  }
});

test('pipelined pushes are answered in order, and bytes after a body are a separate request', async () => {
  await using world = await startHosted();
  const { url } = world.registry;
  const port = Number(new URL(url).port);
  const blobs = [1, 2, 3].map((index) => content('application/octet-stream', randomBytes(`pipelined ${index}`, 1000 * index)));
  const head = ({ digest }: { digest: string }, length: string): string =>
    `POST /v2/${REPOSITORY}/blobs/uploads/?digest=${digest} HTTP/1.1\r\nHost: x\r\nAuthorization: ${AUTHORIZATION}\r\n${length}\r\n\r\n`;
  const whole = blobs.flatMap((blob) => [Buffer.from(head(blob, `Content-Length: ${blob.size}`)), blob.bytes]);
  const last = Buffer.from(`GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
  assert.deepEqual(statuses((await talk(port, Buffer.concat([...whole, last]))).text), [201, 201, 201, 200]);
  for (const { digest, bytes } of blobs) {
    const response = await fetch(`${url}/v2/${REPOSITORY}/blobs/${digest}`);
    assert.ok(bytes.equals(Buffer.from(await response.arrayBuffer())));
  }
  // More bytes than Content-Length says: they belong to nothing, and the connection ends.
  const longer = content('application/octet-stream', randomBytes('longer', 1000));
  const more = Buffer.concat([Buffer.from(head(longer, 'Content-Length: 1000')), longer.bytes, randomBytes('more', 100)]);
  const { text, took } = await talk(port, more, { patience: 30_000 });
  assert.ok(took < 30_000, 'the connection was closed');
  assert.deepEqual(
    statuses(text).filter((status) => status !== 201 && status !== 400),
    [],
  );
  const stored = await fetch(`${url}/v2/${REPOSITORY}/blobs/${longer.digest}`);
  if (stored.status !== 404)
    assert.ok(longer.bytes.equals(Buffer.from(await stored.arrayBuffer())), 'exactly the announced bytes, or none');
  assert.equal((await fetch(`${url}/v2/`)).status, 200);
});

test('a request whose length is ambiguous is refused, and its connection is closed', async () => {
  await using world = await startHosted();
  const { url } = world.registry;
  const blob = content('application/octet-stream', randomBytes('ambiguous', 100));
  const smuggled = `GET /v2/smuggled HTTP/1.1\r\nHost: x\r\n\r\n`;
  const lengths = [
    'Content-Length: 100\r\nTransfer-Encoding: chunked',
    'Transfer-Encoding: chunked\r\nContent-Length: 100',
    'Content-Length: 100\r\nContent-Length: 101',
    'Content-Length: +100',
    'Content-Length: 0x64',
    'Content-Length: 100, 100',
    'Content-Length : 100',
    'Transfer-Encoding: chunked, identity',
    'Transfer-Encoding: xchunked',
    'Transfer-Encoding:\x0bchunked',
    ' Content-Length: 100',
  ];
  for (const length of lengths) {
    const head = `POST /v2/${REPOSITORY}/blobs/uploads/?digest=${blob.digest} HTTP/1.1\r\nHost: x\r\nAuthorization: ${AUTHORIZATION}\r\n`;
    const body = `${blob.bytes.toString('latin1')}${smuggled}`;
    const request = Buffer.from(`${head}${length}\r\n\r\n${body}`, 'latin1');
    const { text, took } = await talk(Number(new URL(url).port), request, { patience: 30_000 });
    // Node refuses some of them after it has passed the request on: then there is no answer.
    assert.match(statuses(text).join(), /^(?:400)?$/, length);
    assert.ok(took < 30_000, `${length}: the connection was closed`);
  }
  assert.equal((await fetch(`${url}/v2/${REPOSITORY}/blobs/${blob.digest}`)).status, 404);
});

test('a slow body is accepted whole, and other pushes do not wait for it', async () => {
  await using world = await startHosted();
  const { url } = world.registry;
  const post = (digest: string, body: Uint8Array<ArrayBuffer> | ReadableStream) =>
    fetch(`${url}/v2/${REPOSITORY}/blobs/uploads/?digest=${digest}`, {
      method: 'POST',
      headers: { authorization: AUTHORIZATION },
      body,
      duplex: 'half',
    });
  const finish = Promise.withResolvers<void>();
  const slow = Array.from({ length: 40 }, (_, index) => content('application/octet-stream', randomBytes(`slow ${index}`, 40)));
  async function* dripping({ bytes }: { bytes: Buffer }): AsyncGenerator<Uint8Array> {
    for (const byte of bytes.subarray(0, 20)) yield Uint8Array.of(byte);
    await finish.promise;
    for (const byte of bytes.subarray(20)) yield Uint8Array.of(byte);
  }
  const pushes = slow.map((blob) => post(blob.digest, ReadableStream.from(dripping(blob))));
  const quick = content('application/octet-stream', randomBytes('quick', 100_000));
  assert.equal((await post(quick.digest, new Uint8Array(quick.bytes))).status, 201);
  finish.resolve();
  for (const { status } of await Promise.all(pushes)) assert.equal(status, 201);
});

test('names and tags outside the grammar are refused everywhere', async () => {
  await using world = await startHosted();
  const { url } = world.registry;
  const ask = async (method: string, target: string) => {
    const login = `Authorization: ${AUTHORIZATION}\r\nContent-Length: 0\r\n`;
    const { text } = await talk(Number(new URL(url).port), `${method} ${target} HTTP/1.1\r\nHost: x\r\n${login}Connection: close\r\n\r\n`);
    return [statuses(text)[0], /"code":"(\w+)"/.exec(text)?.[1]];
  };
  const digest = `sha256:${'0'.repeat(64)}`;
  const names = [
    'local/Team',
    'local/team//app',
    'local/-app',
    'local/app-',
    'local/a..b',
    'local/_app',
    'local/%2e%2e',
    `local/${'a'.repeat(300)}`,
  ];
  for (const name of names) {
    for (const [method, rest] of [
      ['POST', 'blobs/uploads/'],
      ['PUT', 'manifests/1'],
      ['DELETE', `blobs/${digest}`],
    ] as const) {
      assert.deepEqual(await ask(method, `/v2/${name}/${rest}`), [400, 'NAME_INVALID'], `${method} ${name}`);
    }
    assert.deepEqual(await ask('POST', `/v2/${REPOSITORY}/blobs/uploads/?mount=${digest}&from=${name}`), [400, 'NAME_INVALID'], name);
  }
  for (const tag of ['t'.repeat(129), '.hidden', '-x', 'a%20b', 'a%00']) {
    assert.deepEqual(await ask('PUT', `/v2/${REPOSITORY}/manifests/${tag}`), [400, 'TAG_INVALID'], tag);
    assert.deepEqual(await ask('DELETE', `/v2/${REPOSITORY}/manifests/${tag}`), [400, 'TAG_INVALID'], tag);
    assert.deepEqual(await ask('PUT', `/v2/${REPOSITORY}/manifests/${digest}?tag=${tag}`), [400, 'TAG_INVALID'], tag);
  }
});

test('a push in one request leaves no blob if it is cut, and can be repeated', async () => {
  await using world = await startHosted();
  const { url } = world.registry;
  const port = Number(new URL(url).port);
  const blob = content('application/octet-stream', randomBytes('cut', 48));
  const path = `/v2/${REPOSITORY}/blobs`;
  const head = (method: string, target: string) =>
    `${method} ${target}?digest=${blob.digest} HTTP/1.1\r\nHost: x\r\nAuthorization: ${AUTHORIZATION}\r\nContent-Length: ${blob.size}\r\nConnection: close\r\n\r\n`;
  const begun = await fetch(`${url}${path}/uploads/`, { method: 'POST', headers: { authorization: AUTHORIZATION } });
  const requests = [head('POST', `${path}/uploads/`), head('PUT', begun.headers.get('location') ?? '')];
  for (const request of requests) {
    for (let cut = 0; cut < blob.size; cut++) {
      await talk(port, Buffer.concat([Buffer.from(request), blob.bytes.subarray(0, cut)]), { half: true });
      assert.equal((await fetch(`${url}${path}/${blob.digest}`, { method: 'HEAD' })).status, 404, `${cut} of ${blob.size}`);
    }
    assert.deepEqual(statuses((await talk(port, Buffer.concat([Buffer.from(request), blob.bytes]))).text), [201]);
    await fetch(`${url}${path}/${blob.digest}`, { method: 'DELETE', headers: { authorization: AUTHORIZATION } });
  }
});
