import { setTimeout as delay } from 'node:timers/promises';
import { startAgent, startRegistry } from '../test/support/program.ts';
import { temporaryDirectory } from '../test/support/temporary.ts';
import { load } from './load.ts';
import { processorSeconds } from './processor-time.ts';
import { startUpstream } from './servers.ts';
import { median } from './turns.ts';

// npm run bench:agent: measures how much time and CPU an agent adds to a warm pull, and how much
// memory it keeps; prints JSON. A blob of 64 MiB, four connections, alternating between the
// registry itself and the agent. One kind of clients hashes the bytes, as containerd and all other
// clients of a pull do; the other kind discards them. `cost`: CPU seconds per GiB; `registry`:
// without an agent.

const MiB = 2 ** 20;
const CONNECTIONS = 4;
const SECONDS = 3;
const TURNS = 5;

await using stack = new AsyncDisposableStack();
const upstream = await startUpstream(stack);
const digest = await upstream.addBlob(64 * MiB);
const { path: directory } = stack.use(await temporaryDirectory());
const upstreams = { dockerhub: { url: upstream.url } };
const registry = stack.use(await startRegistry({ storage: { filesystem: { directory } }, upstreams }));
const agent = stack.use(await startAgent({ registry: registry.url }, { registry: { upstreams } }));
await delay(5000);
const idle = await agent.memory();

const contestants = { registry, agent };
const rates = { hashed: { registry: [] as number[], agent: [] as number[] }, plain: { registry: [] as number[], agent: [] as number[] } };
const costs = { registry: [] as number[], agent: [] as number[] };
for (let turn = 0; turn <= TURNS; turn++) {
  for (const [kind, verify] of [
    ['hashed', true],
    ['plain', false],
  ] as const) {
    for (const name of ['registry', 'agent'] as const) {
      const { url, pid } = contestants[name];
      const clients = Array.from({ length: CONNECTIONS }, () => ({ urls: [`${url}/v2/dockerhub/library/bench/blobs/${digest}`] }));
      const before = await processorSeconds(pid);
      const { bytes, seconds } = await load({ clients, seconds: SECONDS, verify });
      if (turn === 0) continue; // warm-up
      rates[kind][name].push(bytes / seconds);
      if (kind === 'plain') costs[name].push(((await processorSeconds(pid)) - before) / (bytes / 2 ** 30));
    }
  }
}
await delay(5000);
const after = await agent.memory();

const round = (value: number): number => Number(value.toFixed(2));
const inMiB = ({ anonymous, resident }: typeof idle) => ({ anonymous: round(anonymous / MiB), resident: round(resident / MiB) });
const compare = ({ registry, agent }: { registry: number[]; agent: number[] }) => ({
  registry: round(median(registry) / MiB),
  agent: round(median(agent) / MiB),
  ratio: round(median(agent.map((rate, turn) => rate / (registry[turn] ?? Number.NaN)))),
});
const result = {
  memory: { idle: inMiB(idle), afterLoad: inMiB(after) },
  pull: { hashed: compare(rates.hashed), plain: compare(rates.plain) },
  cost: { registry: round(median(costs.registry)), agent: round(median(costs.agent)) },
};
process.stdout.write(`${JSON.stringify(result, undefined, 2)}\n`);
