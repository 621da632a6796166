import { randomBytes } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { answersOk } from '../../test/support/process.ts';
import { startProgram } from '../../test/support/program.ts';
import { freePort, temporaryDirectory } from '../../test/support/temporary.ts';
import { startVersitygw } from '../../test/support/versitygw.ts';
import type { Row, Turn } from '../row.ts';

const BLOBS = 100_000;

const start: Row = {
  name: 'start',
  title: { en: 'Time from start to ready', zh: '从启动到就绪' },
  unit: 'seconds',
  targets: ['empty', '100,000 blobs', 'S3, empty', 'S3, 100,000 blobs in the local tier'].map((of) => ({ of, atMost: 0.5 })),
  async open(stack) {
    const { path } = stack.use(await temporaryDirectory());
    const { endpoint, bucket, region, accessKeyId, secretAccessKey } = stack.use(await startVersitygw());
    const full = join(path, 'full');
    await fill(full, BLOBS);
    const filesystem = (directory: string) => ({ storage: { filesystem: { directory } } });
    const s3 = (directory: string) => ({
      storage: { s3: { endpoint, bucket, region, accessKeyId, secretAccessKey } },
      local: { directory },
    });
    return {
      empty: starting(filesystem(join(path, 'empty'))),
      '100,000 blobs': starting(filesystem(full)),
      'S3, empty': starting(s3(join(path, 'tier'))),
      'S3, 100,000 blobs in the local tier': starting(s3(full)),
    };
  },
};

/** The time from the start of the process to the first successful response of /readyz. */
export function starting(registry: Record<string, unknown>): Turn {
  return async () => {
    const admin = `127.0.0.1:${await freePort()}`;
    const configuration = { registry: { listen: `127.0.0.1:${await freePort()}`, admin, ...registry } };
    const started = performance.now();
    await using program = await startProgram('registry', configuration);
    while (!(await answersOk(`http://${admin}/readyz`))) {
      await Promise.race([sleep(2), program.exited.then((how) => Promise.reject(new Error(`ended with ${how}: ${program.output()}`)))]);
    }
    return (performance.now() - started) / 1000;
  };
}

/** Creates small files under the keys of blobs. */
async function fill(directory: string, count: number): Promise<void> {
  for (let n = 0; n < 256; n++) {
    const shard = n.toString(16).padStart(2, '0');
    const folder = join(directory, 'v1/blobs/sha256', shard);
    await mkdir(folder, { recursive: true });
    const names = Array.from({ length: Math.ceil(count / 256) }, () => shard + randomBytes(31).toString('hex'));
    await Promise.all(names.map((name) => writeFile(join(folder, name), name)));
  }
}

export const startRows = [start];
