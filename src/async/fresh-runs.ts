interface Queue<Value> {
  running: Promise<Value> | undefined;
  /** The run for all who call now. */
  waiting: Promise<Value> | undefined;
}

/** Runs `work(key)` for its callers: each of them gets a run that begins after its call. Callers
 *  that come while one runs share the next, so that many callers at once cost two runs at most.
 *  @throws what the run throws, to all who share it */
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
