/** Runs `work(key)` for its callers: each of them gets a run that begins after its call. Callers
 *  that come while one runs share the next, so that many callers at once cost two runs at most.
 *  @throws what the run throws, to all who share it */
export function freshRuns<Value>(work: (key: string) => Promise<Value>): (key: string) => Promise<Value> {
  const waiting = new Map<string, Promise<Value>>();
  const running = new Map<string, Promise<Value>>();
  return (key) => {
    const joined = waiting.get(key);
    if (joined !== undefined) return joined;
    const turn = (running.get(key) ?? Promise.resolve())
      .catch(() => undefined) // thrown to the callers that share it
      .then(() => {
        waiting.delete(key);
        running.set(key, turn);
        return work(key);
      })
      .finally(() => {
        if (running.get(key) === turn) running.delete(key);
      });
    waiting.set(key, turn);
    return turn;
  };
}
