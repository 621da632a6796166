export interface Lru<Value> {
  get(key: string): Value | undefined;
  set(key: string, value: Value): void;
  delete(key: string): void;
}

interface Entry<Value> {
  key: string;
  value: Value;
  older: Entry<Value> | undefined;
  newer: Entry<Value> | undefined;
}

/** The most recently used entries, as many as fit into `limit` by `weigh` (by default one each).
 *
 *  They are chained, so that a hit allocates nothing. A Map alone, whose entries are taken out and put back, makes a new table every few hits;
 *  one that has become old and dead keeps the next one alive, and so on, with all that was in them. */
export function createLru<Value>(limit: number, weigh: (value: Value) => number = () => 1): Lru<Value> {
  const entries = new Map<string, Entry<Value>>();
  let oldest: Entry<Value> | undefined;
  let newest: Entry<Value> | undefined;
  let weight = 0;

  function append(entry: Entry<Value>): void {
    entry.older = newest;
    if (newest === undefined) oldest = entry;
    else newest.newer = entry;
    newest = entry;
  }

  function unchain(entry: Entry<Value>): void {
    const { older, newer } = entry;
    if (older === undefined) oldest = newer;
    else older.newer = newer;
    if (newer === undefined) newest = older;
    else newer.older = older;
    entry.older = entry.newer = undefined;
  }

  function remove(key: string): void {
    const entry = entries.get(key);
    if (entry === undefined) return;
    entries.delete(key);
    unchain(entry);
    weight -= weigh(entry.value);
  }

  return {
    get(key) {
      const entry = entries.get(key);
      if (entry === undefined) return undefined;
      if (entry !== newest) {
        unchain(entry);
        append(entry);
      }
      return entry.value;
    },
    set(key, value) {
      remove(key);
      const entry: Entry<Value> = { key, value, older: undefined, newer: undefined };
      entries.set(key, entry);
      append(entry);
      weight += weigh(value);
      while (weight > limit && oldest !== undefined) remove(oldest.key);
    },
    delete: remove,
  };
}
