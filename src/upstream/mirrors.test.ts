import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  basic,
  blob,
  context,
  login,
  openUpstream,
  readBlob,
  REPOSITORY,
  serveContent,
  startStub,
  TAG,
  type Call,
} from '../../test/support/stub-registry.ts';
import { isOciError } from '../oci/error.ts';
import { parseRepository } from '../oci/reference.ts';

const NOBODY = 'http://127.0.0.1:1';
const other = parseRepository('acme/other');

test('promise 8: one image that a mirror refuses or has broken does not keep others from coming from it', async () => {
  for (const status of [400, 401, 402, 403, 404, 406, 410, 416, 451, 500]) {
    await using mirror = await startStub((call) => (call.repository === 'acme/other' ? call.refuse(status) : serveContent(call)));
    const { registry } = openUpstream(NOBODY, { mirrors: [{ url: mirror.url }], limits: { attempts: 1 } });
    await assert.rejects(registry.manifest(other, TAG, context()), (error) => isOciError(error, 'UNAVAILABLE'), `${status}`);
    assert.equal((await registry.manifest(REPOSITORY, TAG, context())).descriptor.size > 0, true, `${status}`);
  }
});

test('a mirror that refuses a blob is followed by the next source, as DaoCloud’s, which serves the manifest and answers 403 for the blob', async () => {
  await using mirror = await startStub((call) => (call.kind === 'blobs' ? call.refuse(403) : serveContent(call)));
  await using origin = await startStub(serveContent);
  const reader = openUpstream(origin.url, { mirrors: [{ url: mirror.url }] });
  await reader.registry.manifest(REPOSITORY, TAG, context());
  assert.deepEqual(await readBlob(reader), blob);
  assert.equal(origin.calls.length, 1);
});

test('promise 8: a mirror that has failed is skipped, but used when no other source answers', async () => {
  let healthy = false;
  const page = ({ send, reference }: Call) =>
    send(200, '<!doctype html>', { 'content-type': 'text/html; charset=utf-8', 'docker-content-digest': reference });
  for (const broken of [page, ({ response }: Call) => void response.destroy(), ({ refuse }: Call) => refuse(429)]) {
    healthy = false;
    await using mirror = await startStub((call) => (healthy ? serveContent(call) : broken(call)));
    let alive = true;
    await using origin = await startStub((call) => (alive ? serveContent(call) : call.response.destroy()));
    const reader = openUpstream(origin.url, { mirrors: [{ url: mirror.url }], limits: { attempts: 1 } });
    assert.deepEqual(await readBlob(reader), blob, 'from the next source');
    mirror.seen();
    await reader.registry.manifest(REPOSITORY, TAG, context());
    assert.deepEqual(mirror.seen(), [], 'it is no longer preferred');
    [alive, healthy] = [false, true];
    assert.deepEqual(await readBlob(reader), blob);
  }
});

test('promise 4: while the next source is tried, a slow source is still waited for', async () => {
  await using mirror = await startStub((call) => void setTimeout(() => serveContent(call), 1500));
  const reader = openUpstream(NOBODY, { mirrors: [{ url: mirror.url }], limits: { attempts: 1, headersMs: 900, blobHeadersMs: 6000 } });
  assert.deepEqual(await readBlob(reader), blob, 'no other source has it');
  await using origin = await startStub(serveContent);
  await using silent = await startStub(() => undefined);
  const started = performance.now();
  assert.deepEqual(await readBlob(openUpstream(origin.url, { mirrors: [{ url: silent.url }], limits: { blobHeadersMs: 9000 } })), blob);
  assert.ok(performance.now() - started < 8500, 'the origin is asked meanwhile');
});

test('promise 12: names that credentials are for are asked only of mirrors that have credentials for them', async () => {
  await using origin = await startStub((call) =>
    call.headers.authorization === basic('u', 'p') || call.repository === 'acme/other'
      ? serveContent(call)
      : call.refuse(401, '', { 'www-authenticate': 'Basic realm="x"' }),
  );
  await using open = await startStub(serveContent);
  await using trusted = await startStub((call) =>
    call.headers.authorization === basic('m', 'q')
      ? serveContent(call)
      : call.refuse(401, '', { 'www-authenticate': 'Basic realm="mirror"' }),
  );
  const credentials = [login('u', 'p', 'acme/web')];
  const reader = openUpstream(origin.url, { credentials, mirrors: [{ url: open.url }] });
  await reader.registry.manifest(REPOSITORY, TAG, context());
  await readBlob(reader);
  await Array.fromAsync(reader.registry.tags(REPOSITORY, context()));
  assert.deepEqual(open.seen(), []);
  await reader.registry.manifest(other, TAG, context());
  assert.equal(open.seen().length, 1, 'images without a login come from the mirror');
  const withLogin = openUpstream(NOBODY, { credentials, mirrors: [{ url: trusted.url, credentials: [login('m', 'q')] }] });
  assert.deepEqual(await readBlob(withLogin), blob);
});

test('mirrors have projects in their paths, `?ns=` and headers of their own', async () => {
  await using mirror = await startStub((call) => (call.repository.endsWith('acme/web') ? serveContent(call) : call.refuse(404)));
  for (const [path, expected] of [
    ['/v2/hub-proxy', '/v2/hub-proxy/acme/web/manifests/1?ns=docker.io'],
    ['/v2/hub-proxy/', '/v2/hub-proxy/acme/web/manifests/1?ns=docker.io'],
    ['/v2', '/v2/acme/web/manifests/1?ns=docker.io'],
    ['/base', '/base/v2/acme/web/manifests/1?ns=docker.io'],
  ]) {
    const { registry } = openUpstream(NOBODY, { mirrors: [{ url: mirror.url + path, ns: 'docker.io', headers: { 'x-team': 'build' } }] });
    await registry.manifest(REPOSITORY, TAG, context());
    const [call] = mirror.calls.splice(0);
    assert.equal(call?.path, expected);
    assert.equal(call?.headers['x-team'], 'build');
  }
});
