import assert from 'node:assert/strict';
import { readFile, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseDigest } from '../src/oci/digest.ts';
import { blobKey } from '../src/store/keys.ts';
import { startDistribution } from './support/distribution.ts';
import { makeImage, pushImage, type TestImage } from './support/image.ts';
import { freeAddresses, startAgent, startProgram, startRegistry, type ServingProgram } from './support/program.ts';
import { freePort, temporaryDirectory } from './support/temporary.ts';
import { until } from './support/until.ts';

const image = makeImage({ seed: 'hosts', architectures: ['amd64'] });

/** Pulls over HTTP and compares every byte. `query` is appended to every path. */
async function assertPulled({ url }: ServingProgram, repository: string, { platforms, root }: TestImage, query = ''): Promise<void> {
  const byTag = await fetch(`${url}/v2/${repository}/manifests/1${query}`);
  assert.equal(byTag.status, 200, await byTag.clone().text());
  assert.equal(byTag.headers.get('docker-content-digest'), root.digest);
  for (const { config, layers } of platforms) {
    for (const { digest, bytes } of [config, ...layers]) {
      const response = await fetch(`${url}/v2/${repository}/blobs/${digest}${query}`);
      assert.ok(bytes.equals(Buffer.from(await response.arrayBuffer())), digest);
    }
  }
}

test('promise 17: an image of an unconfigured host is served by the host as a path and by ?ns=, and is kept', async () => {
  await using upstream = await startDistribution();
  await pushImage(upstream.url, 'team/app', '1', image);
  await using registry = await startRegistry({ otherHosts: [upstream.host] });
  const segment = upstream.host.replace(':', '_');
  await assertPulled(registry, `${segment}/team/app`, image);
  await assertPulled(registry, 'team/app', image, `?ns=${upstream.host}`);
  const blobs = upstream.requests().filter(({ method, path }) => method === 'GET' && path.includes('/blobs/'));
  assert.equal(new Set(blobs.map(({ path }) => path)).size, blobs.length, 'each blob was fetched once');
  await upstream.stop();
  await assertPulled(registry, `${segment}/team/app`, image);
  const metrics = await (await fetch(`${registry.admin}/metrics`)).text();
  assert.match(metrics, new RegExp(`kube_registry_cache_reads_total\\{upstream="${segment}",kind="blob",outcome="hit"\\}`));
});

test('an unlisted host is unknown, and so is an internal host that only a glob matches', async () => {
  await using upstream = await startDistribution();
  await pushImage(upstream.url, 'team/app', '1', image);
  await using registry = await startRegistry({ otherHosts: ['*'] });
  const statusOf = async (path: string) => (await fetch(`${registry.url}/v2/${path}/manifests/1`)).status;
  assert.equal(await statusOf(`${upstream.host.replace(':', '_')}/team/app`), 404, 'an address that only a glob would list');
  assert.equal(await statusOf('library/nginx'), 404);
  const local = await fetch(`${registry.url}/v2/localhost.localdomain_${upstream.host.split(':')[1]}/team/app/manifests/1`);
  assert.ok([403, 404, 502, 503].includes(local.status), 'a public name that leads inside is not followed');
});

test('promise 17: `cache` warms, lists, checks, exports, repairs and imports an image by the name of its host', async () => {
  await using upstream = await startDistribution();
  await pushImage(upstream.url, 'team/app', '1', image);
  await using temporary = await temporaryDirectory();
  const name = `${upstream.host}/team/app:1`;
  const repository = `${upstream.host.replace(':', '_')}/team/app`;
  const archive = join(temporary.path, 'app.tar');
  const configOf = async (directory: string) => ({
    ...(await freeAddresses()),
    storage: { filesystem: { directory: join(temporary.path, directory) } },
    otherHosts: [upstream.host],
  });
  const cache = async (registry: Record<string, unknown>, ...args: string[]): Promise<string> => {
    const command = await startProgram('cache', { registry, log: { level: 'error' } }, { args });
    assert.equal(await command.exited, 0, command.output());
    return command.output();
  };
  const [own, other] = [await configOf('own'), await configOf('other')];
  {
    await using registry = await startRegistry(own);
    await cache(own, 'warm', name);
    const asked = upstream.requests().length;
    await assertPulled(registry, repository, image);
    assert.equal(upstream.requests().length, asked, 'everything was warm');
    const rows = JSON.parse(await cache(own, 'ls', '--json')) as { repository: string }[];
    assert.deepEqual(new Set(rows.map((row) => row.repository)), new Set([repository]));
    assert.match(await cache(own, 'check', name), new RegExp(`served as +${repository}:1[^]*stored +yes`));
    await cache(own, 'export', name, '--output', archive);
  }
  const layer = image.platforms[0]?.layers[0]?.digest ?? '';
  await truncate(join(temporary.path, 'own', blobKey(parseDigest(layer))), 10);
  await cache(own, 'verify', '--repair');
  await upstream.stop();
  await using registry = await startRegistry(other);
  await cache(other, 'import', archive);
  await assertPulled(registry, repository, image);
});

test('a host that cannot be served is refused with what to do', async () => {
  await using registry = await startRegistry({ otherHosts: ['*', '!excluded.example'] });
  const long = `${'a'.repeat(60)}.`.repeat(5);
  const list = /registry\.otherHosts .*add it/;
  const rows: [path: string, code: string, message: RegExp][] = [
    ['10.0.0.1/team/app/manifests/1', 'NAME_UNKNOWN', list],
    ['10.0.0.1_5000/team/app/manifests/1', 'NAME_UNKNOWN', list],
    ['localhost_5000/team/app/manifests/1', 'NAME_UNKNOWN', list],
    ['my_host.example/team/app/manifests/1', 'NAME_UNKNOWN', list],
    ['excluded.example/team/app/manifests/1', 'NAME_UNKNOWN', list],
    ['mcr.microsoft.com_0/dotnet/runtime/manifests/1', 'NAME_UNKNOWN', /a port from 1 to 65535/],
    ['mcr.microsoft.com_99999/dotnet/runtime/manifests/1', 'NAME_UNKNOWN', /a port from 1 to 65535/],
    ['MCR.microsoft.com/dotnet/runtime/manifests/1', 'NAME_INVALID', /lower-case/],
    ['mcr.microsoft.com./dotnet/runtime/manifests/1', 'NAME_INVALID', /letters and digits, joined by/],
    [`${long}com/team/app/manifests/1`, 'NAME_INVALID', /at most 255 characters/],
    ['[::1]/team/app/manifests/1', 'NAME_INVALID', /letters and digits/],
    ['xn--fiqs8s.invalid/team/app/manifests/1', 'UNAVAILABLE', /check its name/],
    ['team/app/manifests/1?ns=10.0.0.1', 'NAME_UNKNOWN', /add it to registry\.otherHosts/],
    ['team/app/manifests/1?ns=[::1]:5000', 'NAME_UNKNOWN', /add it to registry\.otherHosts/],
    ['team/app/manifests/1?ns=mcr.microsoft.com.', 'NAME_UNKNOWN', /add it to registry\.otherHosts/],
    ['team/app/manifests/1?ns=my_host.example', 'NAME_INVALID', /registry\.example\.com:5000/],
    ['team/app/manifests/1?ns=mcr.microsoft.com:0', 'NAME_INVALID', /registry\.example\.com:5000/],
    ['team/app/manifests/1?ns=mcr.microsoft.com:99999', 'NAME_INVALID', /registry\.example\.com:5000/],
    [`team/app/manifests/1?ns=${'a'.repeat(300)}.com`, 'NAME_INVALID', /registry\.example\.com:5000/],
  ];
  for (const [path, code, message] of rows) {
    const response = await fetch(`${registry.url}/v2/${path}`);
    const { errors } = (await response.json()) as { errors: { code: string; message: string }[] };
    assert.equal(errors[0]?.code, code, path);
    assert.match(errors[0]?.message ?? '', message, path);
  }
});

test('names without an upstream are those of registry.defaultUpstream', async () => {
  await using upstream = await startDistribution();
  await pushImage(upstream.url, 'library/app', '1', image);
  await pushImage(upstream.url, 'team/app', '1', image);
  const upstreams = { dockerhub: { url: upstream.url, hosts: ['docker.io'], defaultNamespace: 'library' } };
  await using registry = await startRegistry({ upstreams, defaultUpstream: 'dockerhub' });
  for (const repository of ['team/app', 'library/app', 'app', 'dockerhub/team/app']) await assertPulled(registry, repository, image);
});

test('promise 17: the agent pulls from the host itself while the registry does not answer', async () => {
  await using upstream = await startDistribution();
  await pushImage(upstream.url, 'team/app', '1', image);
  const registry = `http://127.0.0.1:${await freePort()}`;
  await using agent = await startAgent({ registry }, { registry: { otherHosts: [upstream.host] } });
  await assertPulled(agent, `${upstream.host.replace(':', '_')}/team/app`, image);
});

test('mirror mode writes hosts.toml for every host that is listed by name, and one for all others with "*"', async () => {
  await using directory = await temporaryDirectory();
  await using registry = await startRegistry();
  await using agent = await startAgent(
    { registry: registry.url, mirror: { directory: directory.path } },
    {
      registry: {
        otherHosts: ['mcr.microsoft.com', 'registry.example.com:5000', '*'],
        hosted: { local: { hosts: ['images.example.com'] } },
      },
    },
  );
  const read = (folder: string) => readFile(join(directory.path, folder, 'hosts.toml'), 'utf8');
  await until(async () => (await read('_default').catch(() => '')) !== '', 'the files are written');
  for (const folder of ['mcr.microsoft.com', 'registry.example.com_5000_', 'images.example.com', 'docker.io', '_default']) {
    assert.match(await read(folder), new RegExp(`\\[host\\."http://${agent.host}"\\]`), folder);
  }
  assert.match(await read('mcr.microsoft.com'), /^server = "https:\/\/mcr\.microsoft\.com"$/m);
  assert.doesNotMatch(await read('_default'), /^server/m);
});
