interface Queue<Value> {
  running: Promise<Value> | undefined;
  /** The next run, which new callers share. */
  waiting: Promise<Value> | undefined;
}

/** Runs `work(key)` such that each caller gets a run that begins after its call. Callers that come
 *  during a run share the next one, so that any number of simultaneous callers cost two runs at
 *  most.
 *  @throws what the run throws, to all callers that share it */
export function freshRuns<Value>(work: (key: string) => Promise<Value>): (key: string) => Promise<Value> {
  const queues = new Map<string, Queue<Value>>();

  async function begin(key: string, queue: Queue<Value>): Promise<Value> {
    await queue.running?.catch(() => undefined); // thrown to the callers that share it
    queue.waiting = undefined;
    const run = work(key);
    queue.running = run;
    try {
      return await run;
    } finally {
      if (queue.running === run && queue.waiting === undefined) queues.delete(key);
    }
  }

  return (key) => {
    let queue = queues.get(key);
    if (queue === undefined) queues.set(key, (queue = { running: undefined, waiting: undefined }));
    queue.waiting ??= begin(key, queue);
    return queue.waiting;
  };
}
