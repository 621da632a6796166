import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AUTHORIZATION, startHosted } from './support/hosted.ts';
import { makeImage, pushImage } from './support/image.ts';
import { statuses, talk } from './support/raw-http.ts';

const REPOSITORY = 'local/team/app';

test('rights hold for every way to write a request: absolute URLs, several question marks, an empty ns', async () => {
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
