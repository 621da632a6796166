import { parentPort, workerData } from 'node:worker_threads';
import { parseDocument } from './compose.ts';
import { YamlError } from './cursor.ts';
import type { YamlAnswer } from './parse-yaml.ts';

function read(text: string): YamlAnswer {
  try {
    return parseDocument(text);
  } catch (error) {
    if (error instanceof YamlError) return { problem: `it is not valid YAML (line ${error.line + 1}: ${error.message})` };
    return { problem: 'its YAML is nested too deep or expands too far' };
  }
}

// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread's port has no origin
parentPort?.postMessage(read(String(workerData)));
