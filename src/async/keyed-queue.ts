export interface KeyedQueueOptions<Value> {
  /** How many tasks run at once. */
  parallel: number;
  /** Never rejects. */
  run(this: void, key: string, value: Value): Promise<void>;
  /** Called when a task begins or ends. */
  changed(this: void): void;
  /** Once it is aborted, no task begins. */
  signal: AbortSignal;
}

/** Runs a task for each key, in the order in which the keys were added. */
export interface KeyedQueue<Value> {
  add(key: string, value: Value): void;
  isWaiting(key: string): boolean;
  isRunning(key: string): boolean;
  /** Tasks that wait or run. */
  size(): number;
  /** The tasks that run. */
  running(): Promise<void>[];
}

/** If a key is added while its task runs, its next task starts after that one. */
export function createKeyedQueue<Value>({ parallel, run, changed, signal }: KeyedQueueOptions<Value>): KeyedQueue<Value> {
  const waiting = new Map<string, Value>();
  const running = new Map<string, Promise<void>>();

  function pump(): void {
    changed();
    for (const [key, value] of waiting) {
      if (running.size >= parallel || signal.aborted) return;
      if (running.has(key)) continue;
      waiting.delete(key);
      const task = run(key, value).finally(() => {
        running.delete(key);
        pump();
      });
      running.set(key, task);
    }
  }

  return {
    add(key, value) {
      waiting.set(key, value);
      pump();
    },
    isWaiting: (key) => waiting.has(key),
    isRunning: (key) => running.has(key),
    size: () => waiting.size + running.size,
    running: () => [...running.values()],
  };
}
