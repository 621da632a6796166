import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Row } from '../row.ts';

const run = promisify(execFile);

/** The output of bench/webhook.ts after 10 s of reviews. */
interface Reviews {
  perSecond: number;
  /** Milliseconds. */
  p99: number;
}

async function reviews(): Promise<Reviews> {
  const { stdout } = await run(process.execPath, [join(import.meta.dirname, '../webhook.ts')]);
  return JSON.parse(stdout) as Reviews;
}

export const webhookRows: readonly Row[] = [
  {
    name: 'webhook',
    title: { en: 'Admission reviews, 16 connections', zh: '准入审查，16 个连接' },
    unit: 'requests/s',
    turns: 1,
    targets: [{ of: 'webhook', atLeast: 3000 }],
    open: () => Promise.resolve({ webhook: async () => (await reviews()).perSecond }),
  },
  {
    name: 'webhook-p99',
    title: { en: 'Admission reviews, 16 connections: 99th percentile', zh: '准入审查，16 个连接：p99' },
    unit: 'seconds',
    turns: 1,
    targets: [{ of: 'webhook', atMost: 0.01 }],
    open: () => Promise.resolve({ webhook: async () => (await reviews()).p99 / 1000 }),
  },
];
