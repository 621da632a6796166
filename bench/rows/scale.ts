import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { Agent, request, type IncomingMessage } from 'node:http';
import { dirname, join } from 'node:path';
import { BLOB_MEDIA_TYPE } from '../../src/oci/descriptor.ts';
import { digestOf, type Digest } from '../../src/oci/digest.ts';
import { parseRepository } from '../../src/oci/reference.ts';
import { blobKey, memberKey } from '../../src/store/keys.ts';
import { startRegistry } from '../../test/support/program.ts';
import { freePort, temporaryDirectory } from '../../test/support/temporary.ts';
import { startVersitygw } from '../../test/support/versitygw.ts';
import type { Contestants, Row, Turn } from '../row.ts';
import { median } from '../turns.ts';
import { starting } from './start.ts';

const MANY = 100_000;
const TURNS = 9;
/** The number of blobs that one turn reads. None was read before, so they come from S3, not from
 *  the local tier. */
const READS = 250;
const FEW = READS * (TURNS + 1);
/** The repository of all of them, so that as many records are in one folder. */
const REPOSITORY = 'hub/team/app';

const KINDS = ['filesystem', 'S3'] as const;
const name = (kind: string, count: number): string => `${kind}, ${count.toLocaleString('en')} blobs`;
const asWith = (few: number) => KINDS.map((kind) => ({ of: name(kind, MANY), against: name(kind, few), atMost: 1.1 }));

const start: Row = {
  name: 'scale-start',
  title: { en: 'Time from start to ready, by number of stored blobs', zh: '从启动到就绪，按存储量' },
  unit: 'seconds',
  turns: TURNS,
  targets: asWith(0),
  open: (stack) => open(stack, 0, (registry) => Promise.resolve(least(3, starting(registry)))),
};

const hit: Row = {
  name: 'scale-hit',
  title: { en: 'Time of a hit of a small blob, by number of stored blobs', zh: '命中一个小 blob，按存储量' },
  unit: 'seconds',
  turns: TURNS,
  targets: asWith(FEW),
  open: (stack) => open(stack, FEW, (registry) => hitting(stack, registry)),
};

/** The best of several attempts, since other work of the machine can only add time. */
function least(times: number, turn: Turn): Turn {
  return async (number) => {
    let best = Infinity;
    for (let go = 0; go < times; go++) best = Math.min(best, await turn(number));
    return best;
  };
}

/** A contestant for each storage with few and with many blobs. Local tiers are empty at first. */
async function open(
  stack: AsyncDisposableStack,
  few: number,
  contestant: (registry: Record<string, unknown>) => Promise<Turn>,
): Promise<Contestants> {
  const contestants: Contestants = {};
  for (const count of [few, MANY]) {
    const { path } = stack.use(await temporaryDirectory());
    const { directory, endpoint, bucket, region, accessKeyId, secretAccessKey } = stack.use(await startVersitygw());
    const storages = {
      filesystem: { filesystem: { directory: join(path, 'data') } },
      S3: { s3: { endpoint, bucket, region, accessKeyId, secretAccessKey } },
    };
    for (const root of [join(path, 'data'), directory]) await fill(root, count);
    for (const kind of KINDS) {
      const upstreams = { hub: { url: `http://127.0.0.1:${await freePort()}` } }; // nobody: what is not stored fails
      const registry = { storage: storages[kind], local: { directory: join(path, 'local') }, upstreams };
      contestants[name(kind, count)] = await contestant(registry);
    }
  }
  // Compared contestants run one after the other.
  return Object.fromEntries(Object.entries(contestants).sort(([one], [other]) => one.localeCompare(other)));
}

/** Reads blobs one after the other over one connection, and returns the median time. */
async function hitting(stack: AsyncDisposableStack, configuration: Record<string, unknown>): Promise<Turn> {
  const registry = stack.use(await startRegistry(configuration));
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  stack.defer(() => agent.destroy());
  return async (turn) => {
    const times: number[] = [];
    for (let index = turn * READS; index < (turn + 1) * READS; index++) {
      const started = performance.now();
      const { digest } = blob(index);
      const outgoing = request(`${registry.url}/v2/${REPOSITORY}/blobs/${digest}`, { agent }).end();
      const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
      const hash = createHash('sha256');
      for await (const chunk of response as AsyncIterable<Buffer>) hash.update(chunk);
      if (`sha256:${hash.digest('hex')}` !== digest) throw new Error(`${digest}: status ${response.statusCode}, or wrong bytes`);
      times.push((performance.now() - started) / 1000);
    }
    return median(times);
  };
}

function blob(index: number): { digest: Digest; content: string } {
  const content = `blob ${index}`;
  return { digest: digestOf(Buffer.from(content)), content };
}

/** Creates this many blobs and their records, as files under their keys. */
async function fill(root: string, count: number): Promise<void> {
  const repository = parseRepository(REPOSITORY);
  const made = new Set<string>();
  const put = async (key: string, content: string): Promise<void> => {
    const file = join(root, key);
    if (!made.has(dirname(file))) await mkdir(dirname(file), { recursive: true });
    made.add(dirname(file));
    await writeFile(file, content);
  };
  for (let index = 0; index < count; index += READS) {
    const some = Array.from({ length: READS }, (_, offset) => blob(index + offset));
    await Promise.all(
      some.flatMap(({ digest, content }) => [
        put(blobKey(digest), content),
        put(memberKey(repository, digest), JSON.stringify({ mediaType: BLOB_MEDIA_TYPE, size: content.length })),
      ]),
    );
  }
}

export const scaleRows = [start, hit];
