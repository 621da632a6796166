import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runPushConformance } from './conformance.ts';
import { startHosted, startStorage, USER } from './hosted.ts';
import { startRoundRobin } from './round-robin.ts';

export interface ConformanceCase {
  /** The distribution specification's. */
  version: '1.1' | 'dev';
  kind: 'filesystem' | 's3';
  replicas: number;
}

/** Makes a test of hosted repositories by the conformance program of the distribution
 *  specification. */
export function testConformance({ version, kind, replicas }: ConformanceCase): void {
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
