import { randomUUID } from 'node:crypto';
import type { Log } from '../telemetry/log.ts';
import type { Job } from './api/actions.ts';

export type JobKind = Job['kind'];

/** The progress of a running job. */
export type Advance = (step: string, done: number, total: number) => void;

/** Long-running actions of this process. */
export interface Jobs {
  /** @param work resolves to the job's result
   *  @returns the started job; undefined: too many jobs are running */
  start(
    this: void,
    kind: JobKind,
    job: { what: string; user: string },
    work: (advance: Advance, signal: AbortSignal) => Promise<Job['result']>,
  ): Job | undefined;
  /** Newest first. */
  list(this: void): Job[];
  find(this: void, id: string): Job | undefined;
  /** Called whenever a job has changed. */
  onChange(this: void, listener: () => void): void;
}

/** How many jobs are remembered. */
const MAX_JOBS = 50;
const MAX_RUNNING = 4;

/** @param stop aborts running jobs */
export function createJobs({ log, stop }: { log: Log; stop: AbortSignal }): Jobs {
  const jobs: Job[] = [];
  let changed: () => void = () => undefined;

  async function run(job: Job, work: (advance: Advance, signal: AbortSignal) => Promise<Job['result']>): Promise<void> {
    const { kind, what, user, id } = job;
    log.info({ event: 'console-job-started', kind, what, user, id }, 'a console action started');
    try {
      job.result = await work((step, done, total) => {
        Object.assign(job, { step, done, total });
        changed();
      }, stop);
      job.state = 'done';
      log.info({ event: 'console-job-done', kind, what, user, id }, 'a console action finished');
    } catch (error) {
      job.state = 'failed';
      job.problem = error instanceof Error ? error.message : String(error);
      log.warn({ event: 'console-job-failed', kind, what, user, id, error }, 'a console action failed');
    }
    job.endedAt = new Date().toISOString();
    changed();
  }

  return {
    start(kind, { what, user }, work) {
      if (jobs.filter(({ state }) => state === 'running').length >= MAX_RUNNING) return undefined;
      const job: Job = {
        id: randomUUID(),
        kind,
        what,
        user,
        state: 'running',
        startedAt: new Date().toISOString(),
        endedAt: null,
        step: '',
        done: 0,
        total: 0,
        problem: null,
        result: null,
      };
      jobs.unshift(job);
      const forgotten = jobs.findLastIndex(({ state }) => state !== 'running');
      if (jobs.length > MAX_JOBS && forgotten !== -1) jobs.splice(forgotten, 1);
      void run(job, work);
      changed();
      return { ...job };
    },
    list: () => jobs.map((job) => ({ ...job })),
    find: (id) => jobs.find((job) => job.id === id),
    onChange(listener) {
      changed = listener;
    },
  };
}
