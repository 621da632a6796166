import { parentPort, workerData } from 'node:worker_threads';
import { parse, YAMLParseError } from 'yaml';
import type { YamlAnswer } from './yaml.ts';

/** Airports write their groups with anchors and aliases; a bomb has billions of them. */
const MAX_ALIASES = 5000;

function read(text: string): YamlAnswer {
  try {
    const document: unknown = parse(text, { maxAliasCount: MAX_ALIASES, merge: true, logLevel: 'error' });
    return { document: JSON.parse(JSON.stringify(document ?? null)) as unknown };
  } catch (error) {
    if (error instanceof YAMLParseError) return { problem: `it is no YAML (line ${error.linePos?.[0].line ?? '?'}: ${error.code})` };
    return { problem: 'its YAML is nested or repeated beyond measure' };
  }
}

// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread's port has no origin
parentPort?.postMessage(read(String(workerData)));
