import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { glob, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { startContainerd } from './support/containerd.ts';
import { startDistribution, type Distribution } from './support/distribution.ts';
import { makeImage, pushImage, sha256 } from './support/image.ts';
import { startAgent, startRegistry, type ServingProgram } from './support/program.ts';
import { startScriptedUpstream, type ScriptedUpstream } from './support/scripted-upstream.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { startTokenServer } from './support/token-server.ts';
import { until } from './support/until.ts';

// Mirror mode with the credentials of pods: the container runtime hands them to the agent.

const PASSWORD = 'mirror-mode-secret';
const accounts = { alice: PASSWORD, bob: 'other', carol: 'changing' };
const image = makeImage({ architectures: ['amd64'], layers: [3_000_000, 70_000] });
const [platform] = image.platforms;
const manifest = image.root.digest;
const layer = platform?.layers[0]?.digest ?? '';
const blobs = [platform?.config.digest ?? '', ...(platform?.layers ?? []).map(({ digest }) => digest)];
const basic = (user: string, password: string) => `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;
const ALICE = basic('alice', accounts.alice);
const BOB = basic('bob', accounts.bob);

for (const way of ['a token service', 'htpasswd'] as const) {
  describe(`promise 18: mirror mode, an upstream with ${way}`, () => {
    const resources = new AsyncDisposableStack();
    /** Who may read acme/app at the token service. */
    const readers = new Set<string | undefined>(['alice', 'carol']);
    let upstream: Distribution;
    let mirror: ScriptedUpstream;
    let registry: ServingProgram;
    let agent: ServingProgram;
    let data: string;
    let certs: string;

    before(async () => {
      const directory = resources.use(await temporaryDirectory()).path;
      [data, certs] = [join(directory, 'data'), join(directory, 'certs.d')];
      {
        await using open = await startDistribution({ directory: join(directory, 'upstream') });
        await pushImage(open.url, 'acme/app', '1', image);
        await pushImage(open.url, 'acme/tools', '1', makeImage({ seed: 'tools' }));
      }
      const allow = (account: string | undefined, repository: string) => repository !== 'acme/app' || readers.has(account);
      const token = resources.use(await startTokenServer({ accounts, allow, lifetime: 10 }));
      upstream = resources.use(
        await startDistribution({
          directory: join(directory, 'upstream'),
          auth: way === 'htpasswd' ? { htpasswd: { alice: accounts.alice, carol: accounts.carol } } : { token },
        }),
      );
      mirror = resources.use(await startScriptedUpstream());
      const upstreams = { corp: { url: upstream.url, hosts: ['corp.example'], mirrors: [{ url: mirror.url }], tagTtl: '1s' } };
      registry = resources.use(
        await startRegistry({ storage: { filesystem: { directory: data } }, upstreams }, {}, { log: { level: 'debug' } }),
      );
      agent = resources.use(
        await startAgent({ registry: registry.url, mirror: { directory: certs } }, { registry: { upstreams }, log: { level: 'debug' } }),
      );
    });
    after(() => resources.disposeAsync());

    const ask = async (path: string, authorization?: string, init: RequestInit = {}, at = agent) => {
      const headers = { ...(authorization === undefined ? {} : { authorization }), ...(init.headers as Record<string, string>) };
      const response = await fetch(`${at.url}/v2/${path}`, { ...init, headers });
      const bytes = Buffer.from(await response.arrayBuffer());
      return { status: response.status, digest: sha256(bytes), challenge: response.headers.get('www-authenticate') };
    };
    const transfers = () =>
      upstream.requests().filter(({ method, path, status }) => method === 'GET' && path.includes(layer) && status < 300);

    test('requests that upstream refuses to anonymous clients are answered with a challenge; other requests never are', async () => {
      const refused = await ask('acme/app/manifests/1?ns=corp.example');
      assert.equal(refused.status, 401);
      assert.match(refused.challenge ?? '', /^Basic /);
      assert.equal((await ask('acme/app/manifests/1?ns=corp.example', undefined, { method: 'HEAD' })).challenge, refused.challenge);
      assert.equal((await ask('corp/acme/app/manifests/1')).challenge, null, 'a rewritten name');
      assert.equal((await ask('corp/acme/app/manifests/1', ALICE)).status, 401, 'its credentials are not for us');
      const wrong = await ask('acme/app/manifests/1?ns=corp.example', basic('alice', 'wrong'));
      assert.deepEqual([wrong.status, wrong.challenge], [401, null], 'the runtime goes on to upstream at once');
      assert.equal((await ask('acme/app/manifests/1?ns=corp.example', BOB)).status, 401);
    });

    test('a client that may read an image pulls it through the cache, and its blobs are downloaded once', async () => {
      for (const authorization of [ALICE, basic('carol', accounts.carol), ALICE]) {
        assert.equal((await ask('acme/app/manifests/1?ns=corp.example', authorization, { method: 'HEAD' })).status, 200);
        assert.equal((await ask(`acme/app/manifests/${manifest}?ns=corp.example`, authorization)).digest, manifest);
        for (const blob of blobs) assert.equal((await ask(`acme/app/blobs/${blob}?ns=corp.example`, authorization)).digest, blob);
      }
      assert.equal(transfers().length, 1);
    });

    test('other clients get no byte of a cached private image, under any name', async () => {
      const names = ['acme/app', 'acme/tools'].flatMap((name) => [`${name}/blobs/${layer}`, `${name}/manifests/${manifest}`]);
      for (const [at, path] of [
        ...names.flatMap((name) => [
          [agent, `${name}?ns=corp.example`] as const,
          [agent, `corp/${name}`] as const,
          [registry, `corp/${name}`] as const,
        ]),
        [registry, `by-mirror/corp/acme/app/manifests/${manifest}`] as const,
        [registry, `by-mirror/corp/acme/app/blobs/${layer}`] as const,
      ]) {
        for (const authorization of [undefined, BOB, basic('alice', 'wrong'), 'Bearer anything']) {
          for (const init of [
            {},
            { method: 'HEAD' },
            { headers: { range: 'bytes=0-9' } },
            { headers: { 'if-none-match': `"${layer}"` } },
          ]) {
            const { status } = await ask(path, authorization, init, at);
            assert.ok([401, 403, 404].includes(status), `${path} ${authorization} ${JSON.stringify(init)}: ${status}`);
          }
        }
      }
    });

    test('a login is never in a file or log line, and never sent to mirrors', async () => {
      const text = Buffer.from(ALICE.slice('Basic '.length));
      const hidden = [
        Buffer.from(PASSWORD),
        text,
        createHash('sha256').update(ALICE).digest(),
        Buffer.from(createHash('sha256').update(ALICE).digest('hex')),
      ];
      const places: Buffer[] = [Buffer.from(registry.output()), Buffer.from(agent.output())];
      for await (const entry of glob(`${data}/**/*`, { withFileTypes: true })) {
        if (entry.isFile()) places.push(Buffer.from(entry.name), await readFile(join(entry.parentPath, entry.name)));
      }
      assert.ok(places.length > 4, 'there are files');
      for (const place of places) for (const needle of hidden) assert.equal(place.indexOf(needle), -1);
      assert.deepEqual(
        mirror.requests.filter(({ authorization }) => authorization !== undefined),
        [],
      );
    });

    if (way === 'a token service') {
      test('a client that loses its right upstream is refused within a minute, by digest too', async () => {
        readers.delete('carol');
        const carol = basic('carol', accounts.carol);
        for (const path of ['manifests/1', `manifests/${manifest}`, `blobs/${layer}`])
          await until(async () => (await ask(`acme/app/${path}?ns=corp.example`, carol)).status === 401, `${path} is refused`, 120_000);
        assert.equal((await ask('acme/app/manifests/1?ns=corp.example', ALICE)).status, 200);
      });
    }

    for (const release of ['debian', '2.4'] as const) {
      test(`containerd ${release} pulls with the kubelet's credentials, and without them asks upstream itself`, async () => {
        await until(() => readFile(join(certs, 'corp.example', 'hosts.toml'), 'utf8').then(Boolean, () => false), 'hosts.toml is written');
        const before = upstream.requests().length;
        await using containerd = await startContainerd({ release, configPath: certs });
        await containerd.cri('pull', '--creds', `alice:${accounts.alice}`, 'corp.example/acme/app:1');
        const asked = upstream.requests().slice(before);
        assert.ok(
          !asked.some(({ method, path, status }) => method === 'GET' && path.includes('/blobs/') && status === 200),
          'no blob came again',
        );
        await containerd.cri('remove', 'corp.example/acme/app:1');
        for (const creds of [[], ['--creds', `bob:${accounts.bob}`]]) {
          await assert.rejects(
            containerd.cri('pull', ...creds, 'corp.example/acme/app:1'),
            /authorization failed|401|403|denied|unauthorized/i,
          );
        }
        await containerd.cri('pull', '--creds', `alice:${accounts.alice}`, 'corp.example/acme/app:1');
      });
    }
  });
}
