import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseConfig } from '../../config/load.ts';
import { upstreamsByHost } from './upstreams-by-host.ts';

test('a host of an upstream is found however it is capitalised, in the configuration and in the request', () => {
  const upstreams = { harbor: { url: 'https://harbor.example.com', hosts: ['Harbor.Example.com:5000'] } };
  const upstreamOf = upstreamsByHost(parseConfig({ registry: { upstreams } }).registry.upstreams);
  assert.equal(upstreamOf('harbor.example.com:5000'), 'harbor');
  assert.equal(upstreamOf('Docker.IO'), 'dockerhub');
  assert.equal(upstreamOf('example.com'), undefined);
});
