import assert from 'node:assert/strict';
import { createServer, type IncomingMessage } from 'node:http';
import { test } from 'node:test';
import { listenOnLoopback } from '../../../test/support/http.ts';
import { parseConfig } from '../../config/load.ts';
import type { Upstream } from '../../config/schema.ts';
import { parseRepository, parseTag } from '../../oci/reference.ts';
import type { Transport } from '../../http/transport.ts';
import { createTransport } from '../../http/undici-transport.ts';
import { noRegistryMetrics } from '../../telemetry/registry-metrics.ts';
import { createPrivateUpstream } from './private-upstreams.ts';

const context = { signal: new AbortController().signal };

test("promise 18: a pod's login goes to token services of the registry's own domain, and to no other", async () => {
  const seen: { host: string; authorization: string | undefined }[] = [];
  let realm = '';
  const answer = ({ headers, url }: IncomingMessage): [number, Record<string, string>, string] => {
    seen.push({ host: String(headers['x-host']), authorization: headers.authorization });
    if (url?.startsWith('/token') === true) return [200, {}, JSON.stringify({ token: 'anything' })];
    return headers.authorization === undefined
      ? [401, { 'www-authenticate': `Bearer realm="${realm}/token",service="x"` }, '']
      : [404, { 'docker-distribution-api-version': 'registry/2.0' }, ''];
  };
  const server = createServer((request, response) => {
    const [status, headers, body] = answer(request);
    response.writeHead(status, headers).end(body);
  });
  await using local = await listenOnLoopback(server);
  const inner = createTransport({ proxy: 'direct' });
  /** All hosts lead to this server, which gets the original host in a header. */
  const transport: Transport = {
    proxied: true, // names are not looked up here
    request: ({ origin, headers, ...request }) =>
      inner.request({ ...request, origin: local.url, headers: { ...headers, 'x-host': new URL(origin).host } }),
  };
  const routes = { own: transport, outside: transport };
  const { registry: config } = parseConfig({ registry: { upstreams: { gitlab: { url: 'https://registry.gitlab.example' } } } });
  const upstream = { ...(config.upstreams['gitlab'] as Upstream), url: 'https://registry.team.gitlab.example' };
  const logins = [{ repositories: '', username: 'robot', password: 'secret' }];
  for (const [host, isTold] of [
    ['team.gitlab.example', true],
    ['auth.team.gitlab.example', true],
    ['gitlab.example', false],
    ['auth-team.gitlab.example', false],
    ['evil.example', false],
  ] as const) {
    realm = `https://${host}`;
    seen.length = 0;
    const { upstream: own } = createPrivateUpstream(
      { name: 'gitlab', config: upstream, connections: { routes } },
      logins,
      noRegistryMetrics,
    );
    await assert.rejects(own.registry.manifest(parseRepository('acme/app'), parseTag('1'), context));
    const asked = seen.filter((one) => one.host === host);
    assert.ok(asked.length > 0, host);
    assert.equal(
      asked.some(({ authorization }) => authorization?.startsWith('Basic ') === true),
      isTold,
      host,
    );
  }
});
