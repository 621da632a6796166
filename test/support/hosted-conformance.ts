import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runConformance, runPushConformance } from './conformance.ts';
import { AUTHORIZATION, startHosted, startStorage, USER } from './hosted.ts';
import { makeArtifact, makeImage, pushImage } from './image.ts';
import { startRoundRobin } from './round-robin.ts';

export interface ConformanceCase {
  kind: 'filesystem' | 's3';
  replicas: number;
  versions: readonly (keyof typeof CHECKS)[];
}

/** The distribution specification's versions, with the checks that each has when all options are
 *  on. Those of dev are those of 1.1 and more. */
const CHECKS = { '1.1': 860, dev: 984 } as const;

/** Makes a test of hosted repositories by the conformance program of the distribution
 *  specification: as a user who pushes, and as an anonymous client of what was pushed. */
export function testConformance({ kind, replicas, versions }: ConformanceCase): void {
  const over = replicas === 1 ? 'one replica' : `${replicas} replicas behind one address`;
  test(`hosted repositories pass every check of the distribution specification ${versions.join(' and ')}, with ${over}, kept in ${kind}`, async (t) => {
    await using storage = await startStorage(kind);
    await using world = await startHosted({ replicas, ...storage.options });
    await using address = await startRoundRobin(world.registries.map(({ host }) => host));
    for (const version of versions) {
      const counts = await runPushConformance({
        host: address.host,
        repositories: [`local/conformance/${version}/one`, `local/conformance/${version}/two`],
        version,
        ...USER,
      });
      const { pass, fail, error, report } = counts;
      t.diagnostic(`${version}: ${pass} checks passed, ${fail + error} failed`);
      assert.deepEqual({ fail, error }, { fail: 0, error: 0 }, report);
      assert.ok(pass >= CHECKS[version], report);
    }

    const image = makeImage({ seed: 'conformance', layers: [1000] });
    const repository = 'local/conformance/pulled';
    await pushImage(world.registry.url, repository, '1', image, AUTHORIZATION);
    const artifact = makeArtifact(image.root, 'application/vnd.example.signature');
    await pushImage(world.registry.url, repository, 'signature', artifact, AUTHORIZATION);
    const [platform] = image.platforms;
    assert.ok(platform);
    const { pass, fail, error, report } = await runConformance({
      host: address.host,
      repository,
      tags: ['1', 'signature'],
      manifests: [image.root.digest, platform.manifest.digest],
      blobs: [platform.config, ...platform.layers].map(({ digest }) => digest),
      subject: image.root.digest,
    });
    t.diagnostic(`anonymous: ${pass} checks passed, ${fail + error} failed`);
    assert.deepEqual({ fail, error }, { fail: 0, error: 0 }, report);
    assert.ok(pass > 0, report);
  });
}
