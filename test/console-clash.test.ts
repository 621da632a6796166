import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { test } from 'node:test';
import { hash } from '@node-rs/bcrypt';
import type { ClashReport } from '../src/console/api/places.ts';
import { startClash, startSubscriptionServer } from './support/clash.ts';
import { listenOnLoopback } from './support/http.ts';
import { startAirport } from './support/mihomo.ts';
import { startRegistry } from './support/program.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { until } from './support/until.ts';

test('a logged-in user can select a proxy node in the console, and the proxy stays on it; others cannot', async () => {
  await using folder = await temporaryDirectory();
  const users = join(folder.path, 'users');
  await writeFile(users, `admin:${await hash('a password', 4)}\n`);
  await using target = await listenOnLoopback(createServer((_, response) => void response.end('{}')));
  await using one = await startAirport({ name: 'one', hosts: { 'hub.test': '127.0.0.1' } });
  await using other = await startAirport({ name: 'other', hosts: { 'hub.test': '127.0.0.1' } });
  await using subscriptions = await startSubscriptionServer();
  subscriptions.answers.set('/sub', JSON.stringify({ proxies: [one.node, other.node] }));
  await using clash = await startClash({
    subscriptions: [{ name: 'airport', url: subscriptions.url('/sub') }],
    healthCheck: { url: `http://hub.test:${target.port}/v2/` },
  });
  await using registry = await startRegistry({ console: { users, clash: clash.admin } });
  const report = async () => (await (await fetch(`${registry.admin}/api/clash`)).json()) as ClashReport;
  await until(async () => (await report()).nodes.filter(({ alive }) => alive === true).length === 2, 'both nodes are alive');
  const before = await report();
  assert.equal(before.subscriptions[0]?.leftBytes, 1048576 - 1024 - 2048);
  const wanted = before.nodes.find(({ name }) => name !== before.chosen)?.name;
  assert.ok(wanted !== undefined);
  const headers = { 'x-kube-registry-console': '1', 'content-type': 'application/json' };
  const choose = (node: string | null, cookie: string) =>
    fetch(`${registry.admin}/api/actions/choose-node`, { method: 'POST', headers: { ...headers, cookie }, body: JSON.stringify({ node }) });
  assert.equal((await choose(wanted, '')).status, 401);
  const login = await fetch(`${registry.admin}/api/session`, {
    method: 'POST',
    headers,
    body: JSON.stringify({ user: 'admin', password: 'a password' }),
  });
  const cookie = login.headers.getSetCookie()[0]?.split(';')[0] ?? '';
  assert.equal((await choose('no such node', cookie)).status, 400);
  const chosen = (await (await choose(wanted, cookie)).json()) as ClashReport;
  assert.deepEqual([chosen.chosen, chosen.preferred], [wanted, wanted]);
  assert.ok(registry.log().some(({ event, user, node }) => event === 'clash-node-chosen' && user === 'admin' && node === wanted));
  assert.equal((await choose(null, cookie)).status, 200);
  assert.equal((await report()).preferred, null);
  const foreign = await fetch(`${clash.admin}/node`, { method: 'POST', headers: { origin: 'http://evil.example' }, body: '{"node":null}' });
  assert.equal(foreign.status, 403);
  await clash.stop();
  assert.match((await report()).problem ?? '', /does not answer/);
});
