import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { hash } from '@node-rs/bcrypt';
import { buildConsole } from '../console/build.ts';
import { settled, startBrowser } from './support/browser.ts';
import { makeImage } from './support/image.ts';
import { startReplicas } from './support/replicas.ts';
import { startScriptedUpstream } from './support/scripted-upstream.ts';
import { freePort, temporaryDirectory } from './support/temporary.ts';
import { until } from './support/until.ts';
import { startVersitygw } from './support/versitygw.ts';

const PASSWORD = 'correct horse battery staple';
const HEADERS = { 'x-kube-registry-console': '1', 'content-type': 'application/json' };

interface Overview {
  totals: { requests: number };
  unreachable: { address: string }[];
}

async function get<Answer>(admin: string, path: string, headers: Record<string, string> = {}): Promise<Answer> {
  return (await (await fetch(`${admin}${path}`, { headers })).json()) as Answer;
}

/** Reads server-sent events until the connection ends. */
async function readEvents(url: string, onEvent: (kind: string, data: string) => void, signal: AbortSignal): Promise<void> {
  const response = await fetch(url, { signal });
  let text = '';
  for await (const chunk of response.body ?? []) {
    text += Buffer.from(chunk as Uint8Array).toString();
    for (let end = text.indexOf('\n\n'); end !== -1; end = text.indexOf('\n\n')) {
      const [, kind = '', data = ''] = /^event: (\w+)\ndata: (.*)$/.exec(text.slice(0, end)) ?? [];
      text = text.slice(end + 2);
      onEvent(kind, data);
    }
  }
}

test('replicas answer together: sums, sessions and deleted tags; a replica that dies is named, and the event stream continues', async () => {
  await using upstream = await startScriptedUpstream();
  await using s3 = await startVersitygw();
  await using folder = await temporaryDirectory();
  const users = join(folder.path, 'users');
  await writeFile(users, `admin:${await hash(PASSWORD, 4)}\n`);
  const image = makeImage({ seed: 'replicated', layers: [50_000] });
  upstream.add('apps/web', '1', image);
  const adminPort = await freePort();
  await using replicas = await startReplicas({
    upstreams: { hub: { url: upstream.url, hosts: ['hub.example'], tagTtl: '1h' } },
    s3,
    count: 2,
    admin: (address) => `${address}:${adminPort}`,
    registry: { console: { users, inventoryInterval: '1s' } },
  });
  const [one, other] = replicas.all;
  assert.ok(one !== undefined && other !== undefined);
  for (const { url } of replicas.all) assert.equal((await fetch(`${url}/v2/hub/apps/web/manifests/1`)).status, 200);
  const { totals, unreachable } = await get<Overview>(one.admin, '/api/overview');
  assert.deepEqual(unreachable, []);
  assert.ok(totals.requests >= 2, 'of both replicas');
  assert.equal((await get<{ replicas: unknown[] }>(one.admin, '/api/replicas')).replicas.length, 2);

  const login = await fetch(`${one.admin}/api/session`, {
    method: 'POST',
    headers: HEADERS,
    body: JSON.stringify({ user: 'admin', password: PASSWORD }),
  });
  const cookie = login.headers.getSetCookie()[0]?.split(';')[0] ?? '';
  assert.equal(
    (await get<{ user: string | null }>(other.admin, '/api/session', { cookie })).user,
    'admin',
    'the other replica asks the first',
  );
  const asked = upstream.requests.length;
  const deleted = await fetch(`${other.admin}/api/actions/delete-tag`, {
    method: 'POST',
    headers: { ...HEADERS, cookie },
    body: JSON.stringify({ repository: 'hub/apps/web', tag: '1' }),
  });
  assert.deepEqual(((await deleted.json()) as { deleted: boolean }).deleted, true);
  assert.equal((await fetch(`${one.url}/v2/hub/apps/web/manifests/1`)).status, 200);
  assert.ok(upstream.requests.length > asked, 'the first replica has forgotten the tag too, although it was fresh there');

  const events: { unreachable: { address: string }[] }[] = [];
  const stop = new AbortController();
  const reading = readEvents(
    `${one.admin}/api/events`,
    (kind, data) => {
      if (kind === 'downloads') events.push(JSON.parse(data) as Overview);
    },
    stop.signal,
  );
  await until(() => events.length > 1, 'the stream has begun');
  await other.stop('SIGKILL');
  await until(() => events.at(-1)?.unreachable[0]?.address === other.address, 'the dead replica is named');
  const before = events.length;
  await until(() => events.length > before + 1, 'the stream goes on');
  const after = await get<Overview>(one.admin, '/api/overview');
  assert.deepEqual(
    after.unreachable.map(({ address }) => address),
    [other.address],
  );
  stop.abort();
  await reading.catch(() => undefined); // aborted
  const out = await fetch(`${one.admin}/api/session`, { method: 'DELETE', headers: { ...HEADERS, cookie } });
  assert.equal(out.status, 200);
  assert.equal((await get<{ user: string | null }>(one.admin, '/api/session', { cookie })).user, null);
});

test('the page shows both replicas, and names the one that dies while it is open', async () => {
  await buildConsole();
  await using upstream = await startScriptedUpstream();
  await using s3 = await startVersitygw();
  const adminPort = await freePort();
  await using replicas = await startReplicas({
    upstreams: { hub: { url: upstream.url, hosts: ['hub.example'] } },
    s3,
    count: 2,
    admin: (address) => `${address}:${adminPort}`,
  });
  const [one, other] = replicas.all;
  assert.ok(one !== undefined && other !== undefined);
  await using browser = await startBrowser();
  await using own = await browser.open(`${one.admin}/#/overview`);
  const { page } = own;
  await settled(page);
  const row = page.getByRole('region', { name: 'Replicas' }).getByRole('row', { name: new RegExp(other.address) });
  await row.getByText('Answers').waitFor();
  await other.stop('SIGKILL');
  await row.getByText('Does not answer').waitFor();
  await page.getByText(`Replica ${other.address} does not answer`).waitFor();
  await page.getByText('One replica did not answer: its part is missing here').waitFor();
  assert.deepEqual(own.errors, [], 'the page goes on');
});
