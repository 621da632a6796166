import type { Row } from '../row.ts';
import { agentRows } from './agent.ts';
import { coldRows } from './cold.ts';
import { farRows } from './far.ts';
import { hostRows } from './host.ts';
import { manifestRows } from './manifest.ts';
import { memoryRows } from './memory.ts';
import { pullRows } from './pull.ts';
import { pushRows } from './push.ts';
import { lineRows } from './s3-lines.ts';
import { startRows } from './start.ts';
import { warmRows } from './warm.ts';
import { webhookRows } from './webhook.ts';

/** All rows, in the order of the tables. */
export const rows: readonly Row[] = [
  ...warmRows,
  ...lineRows,
  ...manifestRows,
  ...coldRows,
  ...farRows,
  ...memoryRows,
  ...pullRows,
  ...pushRows,
  ...startRows,
  ...webhookRows,
  ...agentRows,
  ...hostRows,
];
