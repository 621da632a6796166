import type { Row } from '../row.ts';
import { coldRows } from './cold.ts';
import { manifestRows } from './manifest.ts';
import { warmRows } from './warm.ts';

/** All of them, in the order of the tables. */
export const rows: readonly Row[] = [...warmRows, ...manifestRows, ...coldRows];
