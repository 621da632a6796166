import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { highest } from '../src/peers/peers.ts';
import { startDistribution } from './support/distribution.ts';
import { content, makeImage, pushBlob, randomBytes, sha256, type Content } from './support/image.ts';
import { metric, startReplicas, type Replica } from './support/replicas.ts';
import { until } from './support/until.ts';
import { startScriptedUpstream, type ScriptedUpstream } from './support/scripted-upstream.ts';
import { startTap } from './support/tap.ts';
import { startVersitygw, type Versitygw } from './support/versitygw.ts';

const MiB = 1024 * 1024;
const ADDRESSES = ['127.0.0.1', '127.0.0.2', '127.0.0.3'];

let upstream: ScriptedUpstream;
let s3: Versitygw;

before(async () => {
  [upstream, s3] = await Promise.all([startScriptedUpstream(), startVersitygw()]);
});
after(async () => {
  await upstream[Symbol.asyncDispose]();
  await s3[Symbol.asyncDispose]();
});

/** One connection per blob, so that bytes that several connections download twice are not counted
 *  here. */
const hub = () => ({ hub: { url: upstream.url, connections: 1 } });

/** Reads a blob of any length. @throws when it is cut, or is an error */
async function get(replica: Replica, digest: string, { name = 'hub/a/b', range }: { name?: string; range?: string } = {}): Promise<string> {
  const response = await fetch(`${replica.url}/v2/${name}/blobs/${digest}`, { headers: range === undefined ? {} : { range } });
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
  const hash = createHash('sha256');
  for await (const chunk of response.body ?? []) hash.update(chunk as Uint8Array);
  return `sha256:${hash.digest('hex')}`;
}

async function timed<T>(work: Promise<T>): Promise<{ value: T; seconds: number }> {
  const started = performance.now();
  const value = await work;
  return { value, seconds: (performance.now() - started) / 1000 };
}

let seeds = 0;

/** A new blob that this replica owns. */
function makeOwned(owner: string, size: number): Content {
  for (;;) {
    const blob = content('application/octet-stream', randomBytes(`owned ${seeds++}`, size));
    if (highest(blob.digest, ADDRESSES) === owner) return blob;
  }
}

function addOwned(owner: string, size: number): string {
  return upstream.addBlob(makeOwned(owner, size).bytes);
}

/** Bytes of this blob that upstream has sent. */
function sent(digest: string, by: { requests: readonly { method: string; path: string; bytes: number }[] } = upstream): number {
  return by.requests.filter(({ path, method }) => method === 'GET' && path.includes(digest)).reduce((sum, { bytes }) => sum + bytes, 0);
}

/** It is there, but silent. */
async function halt(replica: Replica): Promise<void> {
  process.kill(replica.pid, 'SIGSTOP');
  const answers = () =>
    fetch(replica.admin, { signal: AbortSignal.timeout(100) }).then(
      () => true,
      () => false,
    );
  await until(async () => !(await answers()), 'it answers no more');
}

async function stored(): Promise<string[]> {
  const files = await readdir(join(s3.directory, 'v1/blobs'), { recursive: true, withFileTypes: true }).catch(() => []);
  return files.filter((file) => file.isFile()).map(({ name }) => `sha256:${name}`);
}

test('promise 10: three replicas download each digest once, whichever are asked and whichever die', async (t) => {
  await using distribution = await startDistribution();
  await using line = await startTap(distribution.url, { rate: MiB / 2, latency: 100 });
  const upstreams = { ...hub(), real: { url: line.url, hosts: ['real.example'] } };
  await using replicas = await startReplicas({ upstreams, s3, count: 3 });
  const [one, two, three] = replicas.all as [Replica, Replica, Replica];

  await t.test('clients of every replica cause one download, and follow it while it runs', async () => {
    const size = 12 * MiB;
    upstream.behave = ({ path }) => (path.includes('/blobs/') ? { latency: 50, rate: 6 * MiB } : {});
    const digests = ADDRESSES.map((address) => addOwned(address, size));
    const got = await Promise.all(digests.flatMap((digest) => replicas.all.map((replica) => get(replica, digest))));
    assert.deepEqual(new Set(got), new Set(digests));
    const copies = digests.reduce((sum, digest) => sum + sent(digest), 0) / (3 * size);
    t.diagnostic(`three blobs by three replicas each: ${copies.toFixed(2)} copies`);
    assert.ok(copies <= 1.5, `${copies} copies: on a machine that stalls, one replica may have taken another for dead`);
    assert.ok(!upstream.requests.some(({ method }) => method === 'HEAD'), 'requests for the same repository share its access check');
    assert.ok((await metric(one.admin, 'peer_requests_total', 'served')) > 0);
  });

  await t.test('a range of a cold blob is read through its owner, without the bytes before it', async () => {
    upstream.behave = () => ({ rate: 4 * MiB });
    const digest = addOwned(two.address, 16 * MiB);
    const value = await get(one, digest, { range: `bytes=${14 * MiB}-${15 * MiB - 1}` });
    assert.match(value, /^sha256:/);
    assert.ok(sent(digest) < 10 * MiB, `upstream had sent ${sent(digest)} bytes by then`);
    const whole = await timed(get(three, digest));
    assert.equal(whole.value, digest);
    assert.ok(sent(digest) <= 1.25 * 16 * MiB);
  });

  await t.test('an owner that waits for a slow upstream is waited for', async () => {
    upstream.behave = ({ path }) => (path.includes('/blobs/') ? { latency: 2500 } : {});
    const digest = addOwned(two.address, MiB);
    assert.equal(await get(one, digest), digest);
    assert.equal(sent(digest), MiB);
  });

  await t.test('a manifest is requested upstream by one replica', async () => {
    upstream.behave = ({ path }) => (path.includes('/manifests/') ? { latency: 300 } : {});
    const image = makeImage({ architectures: ['amd64'], seed: 'peers' });
    upstream.add('a/image', '1', image);
    const url = (replica: Replica) => `${replica.url}/v2/hub/a/image/manifests/${image.root.digest}`;
    const answers = await Promise.all(
      replicas.all.map(async (replica) => sha256(Buffer.from(await (await fetch(url(replica))).arrayBuffer()))),
    );
    assert.deepEqual(new Set(answers), new Set([image.root.digest]));
    const asked = upstream.requests.filter(({ method, path }) => method === 'GET' && path.endsWith(image.root.digest));
    assert.equal(asked.length, 1);
  });

  await t.test('a blob that is not in S3 is served by the replica that has it; wrong bytes of a replica are detected', async () => {
    await s3.stop();
    upstream.behave = () => ({});
    const size = 2 * MiB;
    const [digest, spoilt] = [addOwned(two.address, size), addOwned(two.address, size)];
    for (const each of [digest, spoilt]) assert.equal(await get(two, each), each);
    assert.equal(await get(one, digest), digest);
    assert.equal(sent(digest), size);
    const file = join(two.directory, 'v1/blobs/sha256', spoilt.slice(7, 9), spoilt.slice(7));
    await until(
      () =>
        readFile(file).then(
          () => true,
          () => false,
        ),
      'the owner has kept it',
    );
    const bytes = await readFile(file);
    bytes[1000] = (bytes[1000] ?? 0) ^ 1;
    await writeFile(file, bytes);
    await assert.rejects(get(one, spoilt), 'never whole');
    assert.equal(await get(one, spoilt), spoilt, 'and then from upstream');
    await s3.start();
  });

  await t.test("promise 12: a private repository's blob is refused by every replica under every other name", async () => {
    upstream.behave = ({ path }) => (path.includes('/private/') ? {} : { status: 404 });
    const digest = addOwned(two.address, MiB);
    assert.equal(await get(two, digest, { name: 'hub/private/app' }), digest);
    assert.equal(await get(one, digest, { name: 'hub/private/app' }), digest);
    for (const replica of replicas.all) {
      for (const init of [{}, { method: 'HEAD' }, { headers: { range: 'bytes=0-9' } }, { headers: { 'x-kube-registry-hop': '1' } }]) {
        const response = await fetch(`${replica.url}/v2/hub/public/app/blobs/${digest}`, init);
        await response.body?.cancel();
        assert.equal(response.status, 404, `${replica.address} ${JSON.stringify(init)}`);
      }
    }
    upstream.behave = () => ({});
  });

  await t.test(
    'an owner that hangs is passed over within a second, in the middle of a blob too, and asked again once it answers',
    async () => {
      upstream.behave = ({ path }) => (path.includes('/blobs/') ? { rate: 1.5 * MiB } : {});
      const size = 12 * MiB;
      const running = addOwned(two.address, size);
      const inTheMiddle = get(one, running);
      await until(() => sent(running) > 2 * MiB, 'it is under way');
      await halt(two);
      assert.equal(await inTheMiddle, running, 'cut by the hung owner, resumed from upstream');
      await until(async () => (await metric(one.admin, 'peers_live')) === 2, 'it is known to hang');
      process.kill(two.pid, 'SIGCONT');
      await until(async () => (await metric(one.admin, 'peers_live')) === 3, 'it is known to live');

      upstream.behave = () => ({});
      const hung = addOwned(two.address, MiB);
      await halt(two);
      const first = await timed(get(one, hung));
      const next = await timed(get(one, addOwned(two.address, MiB)));
      process.kill(two.pid, 'SIGCONT');
      assert.equal(first.value, hung);
      t.diagnostic(`past a hung owner in ${first.seconds.toFixed(2)} s, past one known to hang in ${next.seconds.toFixed(2)} s`);
      assert.ok(first.seconds < 8, `${first.seconds} s: a second, and what a busy machine adds`);
      for (const { admin } of replicas.all) await until(async () => (await metric(admin, 'peers_live')) === 3, 'it is known to live again');
      const again = addOwned(two.address, MiB);
      const before = await metric(one.admin, 'peer_requests_total', 'served');
      assert.equal(await get(one, again), again);
      assert.ok((await metric(one.admin, 'peer_requests_total', 'served')) > before, 'its owner is asked again');
    },
  );

  await t.test(
    '30 clients, 20 cold blobs, one replica killed in the middle: right bytes, and nothing twice that was not lost',
    async () => {
      const size = MiB;
      const blobs = Array.from({ length: 20 }, (_, index) => makeOwned(ADDRESSES[index % 3] ?? '', size));
      for (const blob of blobs) await pushBlob(`${distribution.url}/v2/a/b`, blob);
      const digests = blobs.map(({ digest }) => digest);
      let retries = 0;
      async function pull(digest: string, client: number): Promise<void> {
        for (let attempt = 0; ; attempt++) {
          const replica = replicas.all[(client + attempt) % 3] as Replica;
          const got = await get(replica, digest, { name: 'real/a/b' }).catch((error: unknown) =>
            replica === three && attempt === 0 ? undefined : Promise.reject(error as Error),
          );
          if (got !== undefined) return assert.equal(got, digest);
          retries++;
        }
      }
      const clients = Array.from({ length: 30 }, async (_, client) => {
        const queue = digests.map((_, index) => digests[(index * 7 + client * 3) % 20] ?? '');
        await Promise.all(
          Array.from({ length: 4 }, async () => {
            for (let digest = queue.pop(); digest !== undefined; digest = queue.pop()) await pull(digest, client);
          }),
        );
      });
      const total = () => digests.reduce((sum, digest) => sum + sent(digest, line), 0);
      await until(() => total() > 0.4 * 20 * size, 'it is under way');
      await three.stop('SIGKILL');
      const kept = new Set(await stored());
      await Promise.all(clients);
      const lost = digests.filter((digest) => highest(digest, ADDRESSES) === three.address && !kept.has(digest));
      const others = digests.filter((digest) => !lost.includes(digest));
      const copies = (those: string[]) => those.reduce((sum, digest) => sum + sent(digest, line), 0) / (those.length * size);
      t.diagnostic(
        `600 pulls right, ${retries} of them retried; ${others.length} blobs in ${copies(others).toFixed(2)} copies; ${lost.length} whose fills were lost in ${copies(lost).toFixed(2)}`,
      );
      assert.ok(copies(others) <= 1.5, `${copies(others)} copies: on a machine that stalls, one replica may have taken another for dead`);
      assert.ok(retries > 0 && lost.length > 0, 'the killed replica was serving requests');
    },
  );
});

test('promise 10: two replicas that each take the other for the owner do not wait for each other', async () => {
  const other = (address: string, all: readonly string[]) => all.filter((one) => one !== address);
  await using replicas = await startReplicas({ upstreams: hub(), s3, count: 2, finds: other });
  upstream.behave = () => ({ latency: 200 });
  const size = 4 * MiB;
  const image = makeImage({ architectures: ['amd64'], seed: 'each other' });
  upstream.add('a/b', '1', image);
  const digests = Array.from({ length: 4 }, () => upstream.addBlob(randomBytes(`mutual ${seeds++}`, size)));
  const manifest = async (replica: Replica) =>
    sha256(Buffer.from(await (await fetch(`${replica.url}/v2/hub/a/b/manifests/${image.root.digest}`)).arrayBuffer()));
  const all = replicas.all.flatMap((replica) => [...digests.map((digest) => get(replica, digest)), manifest(replica)]);
  const { value, seconds } = await timed(Promise.all(all));
  assert.deepEqual(new Set(value), new Set([...digests, image.root.digest]));
  assert.ok(seconds < 20, `${seconds} s: none waited for the other until its time was up`);
  for (const digest of digests) assert.ok(sent(digest) <= 2.1 * size);
});

test('promise 10: replicas that do not know each other share a bucket without harm', async () => {
  await using replicas = await startReplicas({ upstreams: hub(), s3, count: 2, registry: { peers: undefined } });
  upstream.behave = () => ({ latency: 50, rate: 8 * MiB });
  const digests = Array.from({ length: 6 }, () => upstream.addBlob(randomBytes(`apart ${seeds++}`, 3 * MiB)));
  const got = await Promise.all(replicas.all.flatMap((replica) => digests.map((digest) => get(replica, digest))));
  assert.deepEqual(new Set(got), new Set(digests));
  await until(
    async () =>
      digests.every(
        (
          (kept) => (digest) =>
            kept.includes(digest)
        )(await stored()),
      ),
    'everything is stored',
  );
  for (const digest of digests) {
    assert.equal(sha256(await readFile(join(s3.directory, 'v1/blobs/sha256', digest.slice(7, 9), digest.slice(7)))), digest);
  }
});
