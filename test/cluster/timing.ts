import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { startDistribution } from '../support/distribution.ts';
import { makeImage, pushImage } from '../support/image.ts';
import type { World } from './world.ts';

export interface Timing {
  /** Milliseconds of the fastest round, since other work of the machine can only add time. */
  throughRegistry: number;
  direct: number;
}

/** The minimum and the maximum number of rounds. */
const ROUNDS = { least: 6, most: 12 };
const LAYERS = [25, 25, 25, 25].map((mebibytes) => mebibytes * 2 ** 20);
const PORT = 5000;

/** How long containerd takes to pull an image of 100 MiB: through the agent from a registry that
 *  has cached it, and directly from Distribution; in turns, until `enough` returns true. */
export async function compareWithDirect(world: World, enough: (timing: Timing) => boolean): Promise<Timing> {
  const image = makeImage({ seed: 'large', layers: LAYERS, architectures: ['amd64'] });
  const [host = ''] = world.network.outside;
  await using direct = await startDistribution({ host, port: PORT });
  await pushImage(direct.url, 'library/large', '1', image);
  await world.outside.push('dockerhub', 'library/large', '1', image);
  const trust = join(world.certificatesDirectory, direct.host);
  await mkdir(trust);
  await writeFile(join(trust, 'hosts.toml'), `[host."${direct.url}"]\n  capabilities = ["pull", "resolve"]\n`);

  const names = { throughRegistry: '127.0.0.1:25000/dockerhub/library/large:1', direct: `${direct.host}/library/large:1` };
  const timing: Timing = { throughRegistry: Infinity, direct: Infinity };
  for (let round = 0; round <= ROUNDS.most && (round <= ROUNDS.least || !enough(timing)); round++) {
    for (const way of ['throughRegistry', 'direct'] as const) {
      const begun = performance.now();
      await world.cri('pull', names[way]);
      if (round > 0) timing[way] = Math.min(timing[way], performance.now() - begun); // the first fills the registry
      await world.forget(image.root.digest);
    }
  }
  await rm(trust, { recursive: true });
  return timing;
}
