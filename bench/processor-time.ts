import { readdir, readFile } from 'node:fs/promises';

/** The CPU seconds that a process has used: of its running threads, to the nanosecond, if the
 *  kernel reports them, else of all its threads, in steps of 10 ms. */
export async function processorSeconds(pid: number): Promise<number> {
  const threads = await readdir(`/proc/${pid}/task`);
  const times = await Promise.all(
    threads.map((thread) => readFile(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').catch(() => undefined)),
  );
  if (times.some((time) => time === undefined)) return inTicks(pid);
  return times.reduce((sum, time) => sum + Number(time?.split(' ', 1)[0]) / 1e9, 0);
}

async function inTicks(pid: number): Promise<number> {
  const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) / 100;
}
