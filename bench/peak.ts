import { readFile } from 'node:fs/promises';

/** The peak resident memory in bytes, to which a container's limit applies. */
export async function peakOf(pid: number): Promise<number> {
  const peak = /^VmHWM:\s+(\d+) kB$/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1];
  if (peak === undefined) throw new Error(`process ${pid} has ended`);
  return Number(peak) * 1024;
}
