import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { glob, readFile, writeFile } from 'node:fs/promises';
import { Agent, get, type IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { startDistribution, type Distribution } from './support/distribution.ts';
import { makeImage, pushImage, sha256 } from './support/image.ts';
import { startAgent, startProgram, startRegistry, type ServingProgram } from './support/program.ts';
import { startSecretCluster, type SecretCluster } from './support/pull-secrets.ts';
import { startScriptedUpstream, type ScriptedUpstream } from './support/scripted-upstream.ts';
import { freePort, temporaryDirectory } from './support/temporary.ts';
import { startTokenServer } from './support/token-server.ts';
import { until } from './support/until.ts';

// Private images by the pods' own pull secrets: names that begin with `by-<id>`.

const accounts: Record<string, string> = { alice: 'first-password', bob: 'second-password', eve: 'third-password' };
const image = makeImage({ architectures: ['amd64'], layers: [3_000_000, 70_000] });
const [platform] = image.platforms;
const manifest = image.root.digest;
const layer = platform?.layers[0]?.digest ?? '';
const blobs = [platform?.config.digest ?? '', ...(platform?.layers ?? []).map(({ digest }) => digest)];
const ID = /by-[a-z2-7]{26}/;

for (const way of ['a token service', 'htpasswd'] as const) {
  describe(`promise 18: pull secrets, an upstream with ${way}`, () => {
    const resources = new AsyncDisposableStack();
    /** Who may read acme/app at the token service. */
    const readers = new Set<string | undefined>(['alice', 'bob']);
    let cluster: SecretCluster;
    let upstream: Distribution;
    let mirror: ScriptedUpstream;
    let other: ScriptedUpstream;
    let upstreams: Record<string, unknown>;
    let otherHosts: string[];
    let data: string;
    let registry: ServingProgram;
    let agent: ServingProgram;
    /** `by-<id>` of three namespaces; eve's login may not read acme/app. */
    const names = { alice: '', bob: '', eve: '' };

    const start = () =>
      startRegistry(
        { storage: { filesystem: { directory: data } }, upstreams, otherHosts, hosted: { local: { pull: 'anyone', push: [] } } },
        { env: cluster.env },
        cluster.config,
      );
    const login = (user: string) => ({ username: user, password: accounts[user] ?? '' });

    before(async () => {
      const directory = resources.use(await temporaryDirectory()).path;
      data = join(directory, 'data');
      {
        await using open = await startDistribution({ directory: join(directory, 'upstream') });
        await pushImage(open.url, 'acme/app', '1', image);
        await pushImage(open.url, 'acme/app', '2', makeImage({ seed: 'second' }));
        await pushImage(open.url, 'acme/tools', '1', makeImage({ seed: 'tools' }));
      }
      const allow = (account: string | undefined, repository: string) =>
        repository === 'acme/app' ? readers.has(account) : account !== undefined;
      const token = resources.use(await startTokenServer({ accounts, allow, lifetime: 4 }));
      const htpasswd = { alice: accounts['alice'] ?? '', bob: accounts['bob'] ?? '' };
      upstream = resources.use(
        await startDistribution({ directory: join(directory, 'upstream'), auth: way === 'htpasswd' ? { htpasswd } : { token } }),
      );
      mirror = resources.use(await startScriptedUpstream());
      other = resources.use(await startScriptedUpstream());
      upstreams = {
        corp: { url: upstream.url, hosts: ['corp.example'], mirrors: [{ url: mirror.url }], tagTtl: '1s' },
        evil: { url: other.url, hosts: ['evil.example'] },
      };
      otherHosts = [new URL(other.url).host];
      cluster = resources.use(await startSecretCluster(directory));
      names.alice = await cluster.set('team-a', 'pull', { 'corp.example': login('alice') });
      names.bob = await cluster.set('team-b', 'pull', { 'corp.example': login('bob') });
      names.eve = await cluster.set('team-c', 'pull', { 'corp.example/acme/tools': login('eve') });
      registry = resources.use(await start());
      agent = resources.use(await startAgent({ registry: registry.url }, { registry: { upstreams, otherHosts } }));
    });
    after(() => resources.disposeAsync());

    const ask = async (path: string, init: RequestInit = {}, at: { url: string } = agent) => {
      const response = await fetch(`${at.url}/v2/${path}`, { redirect: 'manual', ...init });
      const bytes = Buffer.from(await response.arrayBuffer());
      return { status: response.status, digest: sha256(bytes), text: bytes.toString() };
    };
    const pull = async (name: string, at: { url: string } = agent) => {
      assert.equal((await ask(`${name}/corp/acme/app/manifests/1`, { method: 'HEAD' }, at)).status, 200);
      assert.equal((await ask(`${name}/corp/acme/app/manifests/${manifest}`, {}, at)).digest, manifest);
      for (const blob of blobs) assert.equal((await ask(`${name}/corp/acme/app/blobs/${blob}`, {}, at)).digest, blob);
    };
    const isRefused = async (path: string, init: RequestInit = {}, at: { url: string } = agent) => {
      const { status, text } = await ask(path, init, at);
      assert.ok([400, 401, 403, 404, 405].includes(status), `${path} ${JSON.stringify(init)}: ${status} ${text.slice(0, 200)}`);
    };
    const transfers = () =>
      upstream.requests().filter(({ method, path, status }) => method === 'GET' && path.includes(layer) && status < 300);

    test('each secret can pull, and the blobs are downloaded once', async () => {
      for (const name of [names.alice, names.bob, names.alice]) await pull(name);
      assert.equal(transfers().length, 1);
      assert.equal(JSON.parse((await ask(`${names.alice}/corp/acme/app/tags/list`)).text).tags.length, 2);
      assert.equal((await ask(`${names.bob}/corp/acme/app/referrers/${manifest}`)).status, 200);
    });

    test('without a secret that upstream accepts, no request gets a byte, under any name', async () => {
      const nobody = `by-${'a'.repeat(26)}`;
      const paths = ['acme/app', 'acme/tools'].flatMap((repository) =>
        [
          'corp',
          `${nobody}/corp`,
          `${names.eve}/corp`,
          `${names.alice.slice(0, -1)}/corp`,
          `${names.alice}a/corp`,
          `${names.alice}/local`,
          `${names.alice}/by-mirror/corp`,
          `${names.alice}/${names.alice}/corp`,
          `${names.eve}/${names.alice}/corp`,
          'by-mirror/corp',
          'by-/corp',
          'evil',
          'local',
        ].flatMap((prefix) => [
          ...(repository === 'acme/tools' && prefix === `${names.eve}/corp` ? [] : [`${prefix}/${repository}/manifests/1`]),
          `${prefix}/${repository}/manifests/${manifest}`,
          `${prefix}/${repository}/blobs/${layer}`,
        ]),
      );
      const ways: RequestInit[] = [
        {},
        { method: 'HEAD' },
        { headers: { range: 'bytes=0-9' } },
        { headers: { 'if-none-match': `"${layer}"` } },
      ];
      for (const at of [agent, registry]) for (const init of ways) for (const path of paths) await isRefused(path, init, at);
      for (const path of paths) await isRefused(path, { headers: { 'x-kube-registry-hop': '1' } }, registry);
      await isRefused(`acme/app/blobs/${layer}?ns=corp.example`);
      await isRefused(`${names.alice}/corp/acme/app/blobs/${layer}?ns=corp.example`);
      await isRefused(`corp/acme/app/referrers/${manifest}`);
      assert.doesNotMatch((await ask('corp/acme/app/tags/list')).text, /"[12]"/);
      assert.equal(mirror.requests.filter(({ path }) => path.includes('by-')).length, 0);
    });

    test('a login goes to the hosts and repositories that its entry is for, and nowhere else', async () => {
      const before = other.requests.length;
      other.behave = () => ({ status: 401, headers: { 'www-authenticate': 'Basic realm="evil"' } });
      const host = new URL(other.url).host.replace(':', '_');
      for (const name of [names.alice, names.eve]) {
        for (const path of [`evil/acme/app/manifests/1`, `${host}/acme/app/manifests/1`]) await isRefused(`${name}/${path}`, {}, registry);
      }
      assert.deepEqual(
        other.requests.slice(before).flatMap(({ authorization }) => authorization ?? []),
        [],
      );
      assert.ok(mirror.requests.every(({ authorization }) => authorization === undefined));
    });

    test('several ids are tried in order, at the first refusal', async () => {
      const both = `by-${names.eve.slice(3)}-${names.alice.slice(3)}`;
      await pull(both);
      await isRefused(`by-${names.eve.slice(3)}-${'b'.repeat(26)}/corp/acme/app/manifests/1`);
      const half = `by-${'b'.repeat(26)}-${names.bob.slice(3)}`;
      await pull(half);
      assert.equal(transfers().length, 1);
    });

    test('proofs of access and stored images survive a restart, for the same secrets only', async () => {
      const before = upstream.requests().length;
      await using next = await start();
      await pull(names.alice, next);
      assert.ok(
        !upstream
          .requests()
          .slice(before)
          .some(({ method, path }) => method === 'GET' && path.includes('/blobs/')),
      );
      await isRefused(`${names.eve}/corp/acme/app/blobs/${layer}`, {}, next);
      await isRefused(`corp/acme/app/blobs/${layer}`, {}, next);
    });

    test('ids are in no line of a log, in no metric and in no list', async () => {
      await isRefused(`${names.alice}/corp/acme/none/manifests/1`);
      for (const program of [registry, agent]) {
        assert.doesNotMatch(program.output(), ID);
        const metrics = await (await fetch(`${program.admin}/metrics`)).text();
        assert.doesNotMatch(metrics, /by-/);
      }
      const metrics = await (await fetch(`${registry.admin}/metrics`)).text();
      assert.match(metrics, /kube_registry_cache_reads_total\{upstream="corp",kind="blob",outcome="hit"\} [1-9]/);
      await using ls = await startProgram(
        'cache',
        { registry: { storage: { filesystem: { directory: data } }, upstreams } },
        { args: ['ls'] },
      );
      await ls.exited;
      assert.doesNotMatch(ls.output(), ID);
      assert.match(ls.output(), /corp\/acme\/app:1 \(private\)/);
    });

    test('a changed password is used at once', async () => {
      const before = accounts['bob'] ?? '';
      await cluster.set('team-b', 'pull', { 'corp.example': { username: 'bob', password: 'wrong' } });
      await until(async () => (await ask(`${names.bob}/corp/acme/tools/manifests/1`)).status === 401, 'the wrong password is refused');
      assert.equal(await cluster.set('team-b', 'pull', { 'corp.example': { username: 'bob', password: before } }), names.bob);
      await until(async () => (await ask(`${names.bob}/corp/acme/tools/manifests/1`)).status === 200, 'the right one is accepted');
    });

    if (way === 'a token service') {
      test('after upstream has revoked access, cached images are served for an hour after its last confirmation, and no longer', async () => {
        readers.delete('bob');
        await until(async () => (await ask(`${names.bob}/corp/acme/app/manifests/2`)).status === 401, 'upstream refuses');
        assert.equal((await ask(`${names.bob}/corp/acme/app/blobs/${layer}`)).digest, layer, 'it agreed a moment ago');
        // Moves the clock: the records become an hour older.
        const records: string[] = [];
        for await (const path of glob(`${data}/v1/repos/${names.bob}/**/*`)) if (!path.endsWith('app')) records.push(path);
        const hour = 3_600_000 + 60_000;
        await using earlier = await start();
        await pull(names.bob, earlier);
        let aged = 0;
        for (const path of records) {
          const record = await readFile(path, 'utf8').catch(() => '');
          if (record === '') continue;
          aged++;
          const older = (text: string) => new Date(Date.parse(text) - hour).toISOString();
          await writeFile(path, record.replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, older));
        }
        assert.ok(aged > 3, `${aged} records`);
        await using late = await start();
        await isRefused(`${names.bob}/corp/acme/app/blobs/${layer}`, {}, late);
        await isRefused(`${names.bob}/corp/acme/app/manifests/${manifest}`, {}, late);
        await isRefused(`${names.bob}/corp/acme/app/manifests/1`, {}, late);
        await isRefused(`${names.bob}/corp/acme/app/tags/list`, {}, late);
        await pull(names.alice, late);
        readers.add('bob');
        const isServed = async () => (await ask(`${names.bob}/corp/acme/app/manifests/1`, {}, late)).status === 200;
        await until(isServed, 'upstream is asked again, a tagTtl after it has refused');
        await pull(names.bob, late);
      });
    }

    test('a deleted Secret ends its names at once, and a new one of the same name opens new names', async () => {
      await pull(names.bob);
      await cluster.remove('team-b', 'pull');
      const gone = ['manifests/1', `manifests/${manifest}`, `blobs/${layer}`];
      const all = async () =>
        (await Promise.all(gone.map((path) => ask(`${names.bob}/corp/acme/app/${path}`)))).every(({ status }) => status === 404);
      await until(all, 'it is gone', 10_000);
      const next = await cluster.set('team-b', 'pull', { 'corp.example': login('bob') });
      assert.notEqual(next, names.bob);
      await until(async () => (await ask(`${next}/corp/acme/app/manifests/1`)).status === 200, 'the new Secret is known');
      await pull(next);
      assert.ok(await all());
      names.bob = next;
      assert.equal(transfers().length, 1);
    });

    test('after the key has changed, new names work and old ones are refused', async () => {
      const old = names.alice;
      await cluster.rotate('another-key-of-16-characters');
      names.alice = await cluster.set('team-a', 'pull', { 'corp.example': login('alice') });
      await until(async () => (await ask(`${names.alice}/corp/acme/app/manifests/1`)).status === 200, 'the new key is in use');
      await pull(names.alice);
      await isRefused(`${old}/corp/acme/app/blobs/${layer}`);
    });

    test('2,000 guessed ids take the time of any unknown name, have the same status, and are counted', async (t) => {
      const counted = async () => {
        const metrics = await (await fetch(`${registry.admin}/metrics`)).text();
        return Number(/^kube_registry_unknown_private_names_total (\d+)/m.exec(metrics)?.[1]);
      };
      const guess = () => `by-${Array.from(randomBytes(26), (byte) => 'abcdefghijklmnopqrstuvwxyz234567'[byte % 32]).join('')}`;
      const before = await counted();
      const connections = new Agent({ keepAlive: true, maxSockets: 8 });
      const times = { guessed: [] as number[], unknown: [] as number[] };
      const measure = async (kind: keyof typeof times, name: string) => {
        const started = performance.now();
        assert.equal(await statusOf(`${registry.url}/v2/${name}/corp/acme/app/manifests/1`, connections), 404);
        times[kind].push(performance.now() - started);
      };
      for (let round = 0; round < 250; round++) {
        await Promise.all(Array.from({ length: 8 }, () => measure('guessed', guess())));
        await Promise.all(Array.from({ length: 8 }, (_, index) => measure('unknown', `nobody-${round}-${index}`)));
      }
      connections.destroy();
      const median = (all: number[]) => all.sort((a, b) => a - b)[Math.floor(all.length / 2)] ?? 0;
      const [guessed, unknown] = [median(times.guessed), median(times.unknown)];
      t.diagnostic(`medians: ${guessed.toFixed(3)} ms for a guessed id, ${unknown.toFixed(3)} ms for an unknown name`);
      assert.ok(guessed < 2 * unknown + 1 && unknown < 2 * guessed + 1, `${guessed} and ${unknown} ms`);
      assert.equal((await counted()) - before, 2000);
    });

    test('without the registry, an agent explains why such an image cannot be pulled, and sends no request upstream', async () => {
      const dead = `http://127.0.0.1:${await freePort()}`;
      await using alone = await startAgent({ registry: dead }, { registry: { upstreams, otherHosts } });
      const before = upstream.requests().length;
      const { status, text } = await ask(`${names.alice}/corp/acme/app/manifests/1`, {}, alone);
      assert.equal(status, 503);
      assert.match(text, /the registry does not answer, and only it has the pull secrets/);
      assert.equal(upstream.requests().length, before);
    });
  });
}

async function statusOf(url: string, agent: Agent): Promise<number | undefined> {
  const [response] = (await once(get(url, { agent }), 'response')) as [IncomingMessage];
  response.resume();
  await once(response, 'end');
  return response.statusCode;
}
