import { startVersitygw } from '../../test/support/versitygw.ts';
import { load } from '../load.ts';
import { peakOf } from '../peak.ts';
import type { Row } from '../row.ts';
import { startOther, startOwn, startUpstream, type Contestant } from '../servers.ts';

const BLOBS = 64;
const SIZE = 16 * 2 ** 20;
/** Bytes per second of each slow client: 8 s per blob. */
const SLOW = 2 * 2 ** 20;

const memory: Row = {
  name: 'memory',
  title: {
    en: 'Peak memory (VmHWM) with 64 simultaneous cold 16 MiB blobs over S3, half of the clients at 2 MiB/s',
    zh: '经 S3 同时拉取 64 个未缓存的 16 MiB blob，一半客户端为 2 MiB/s：内存峰值（VmHWM）',
  },
  unit: 'bytes',
  turns: 1,
  targets: [{ of: 'registry', atMost: 220e6 }],
  async open(stack) {
    const upstream = await startUpstream(stack);
    const digests: string[] = [];
    for (let n = 0; n < BLOBS; n++) digests.push(await upstream.addBlob(SIZE));
    const [warmUp] = [await upstream.addBlob(SIZE)];

    /** Each turn has its own process and bucket, because the peak belongs to a process. */
    const peak =
      (start: (stack: AsyncDisposableStack) => Promise<{ cache: Contestant; pid: number }>) =>
      async (turn: number): Promise<number> => {
        await using stack = new AsyncDisposableStack();
        const { cache, pid } = await start(stack);
        if (turn === 0) await load({ clients: [{ urls: [cache.blob(warmUp)] }], verify: true });
        else await load({ clients: digests.map((digest, n) => ({ urls: [cache.blob(digest)], ...(n % 2 === 0 ? { rate: SLOW } : {}) })) });
        return await peakOf(pid); // before the process ends
      };
    return {
      registry: peak(async (stack) => {
        const own = await startOwn(stack, { upstream, s3: stack.use(await startVersitygw()) });
        return { cache: own, pid: own.program.pid };
      }),
      distribution: peak(async (stack) => {
        const other = await startOther(stack, { upstream, s3: stack.use(await startVersitygw()) });
        return { cache: other, pid: other.distribution.pid() };
      }),
    };
  },
};

export const memoryRows = [memory];
