import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runPushConformance } from './support/conformance.ts';
import { startHosted, startStorage, USER } from './support/hosted.ts';
import { startRoundRobin } from './support/round-robin.ts';

const CASES = [
  { version: '1.1', kind: 'filesystem', replicas: 1 },
  { version: 'dev', kind: 'filesystem', replicas: 3 },
  { version: '1.1', kind: 's3', replicas: 3 },
  { version: 'dev', kind: 's3', replicas: 1 },
] as const;

for (const { version, kind, replicas } of CASES) {
  const over = replicas === 1 ? 'one replica' : `${replicas} replicas behind one address`;
  test(`hosted repositories pass every check of the distribution specification ${version}, with ${over}, kept in ${kind}`, async (t) => {
    await using storage = await startStorage(kind);
    await using world = await startHosted({ replicas, ...storage.options });
    await using address = await startRoundRobin(world.registries.map(({ host }) => host));
    const { pass, fail, error, report } = await runPushConformance({
      host: address.host,
      repositories: ['local/conformance/one', 'local/conformance/two'],
      version,
      ...USER,
    });
    t.diagnostic(`${pass} checks passed, ${fail + error} failed`);
    assert.deepEqual({ fail, error }, { fail: 0, error: 0 }, report);
    assert.ok(pass >= 800, report);
  });
}
