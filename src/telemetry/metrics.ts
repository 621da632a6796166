import type { Counter, Gauge } from 'prom-client';

const PREFIX = 'kube_registry_';

/** The same labels at every call. The number of their values must be bounded: never use what a
 *  client sent. */
export type Labels<Name extends string> = Readonly<Record<Name, string>>;

export interface Metrics {
  /** `add(labels, by)`; `name` without the prefix, ending in `_total`.
   *  @param former a name under which the counter is reported as well, for one release */
  counter<Name extends string>(
    name: string,
    help: string,
    labels: readonly Name[],
    former?: string,
  ): (labels: Labels<Name>, by?: number) => void;
  /** `set(labels, to)`. */
  gauge<Name extends string>(name: string, help: string, labels: readonly Name[]): (labels: Labels<Name>, to: number) => void;
  /** A gauge whose value is read at each scrape. */
  watch(name: string, help: string, read: () => number): void;
  /** Gauges whose rows are read at each scrape; rows that are no longer returned disappear. */
  table<Name extends string>(
    name: string,
    help: string,
    labels: readonly Name[],
    read: () => readonly { labels: Labels<Name>; value: number }[],
  ): void;
  /** `observe(labels, value)`; `buckets` are upper bounds in ascending order. */
  histogram<Name extends string>(
    name: string,
    help: string,
    shape: { labels: readonly Name[]; buckets: readonly number[] },
  ): (labels: Labels<Name>, value: number) => void;
  /** The Prometheus text format. */
  render(): Promise<string>;
}

/** Metrics of this process, including its CPU, memory, file descriptors and event loop. The library
 *  is loaded here and not at import, so that processes without metrics do not pay for it. */
export async function createMetrics(): Promise<Metrics> {
  const { default: prometheus } = await import('prom-client');
  const register = new prometheus.Registry();
  // Ten times the default interval: a timer of 10 ms would keep an idle node agent busy.
  prometheus.collectDefaultMetrics({ register, eventLoopMonitoringPrecision: 100 });
  const common = (name: string, help: string) => ({ name: `${PREFIX}${name}`, help, registers: [register] });

  return {
    counter(name, help, labels, former) {
      const counts = createCounts(labels);
      const report = (name: string, help: string): void => {
        const collect = () => {
          counter.reset();
          for (const { labels, value } of counts.rows()) counter.inc(labels, value);
        };
        const counter: Counter = new prometheus.Counter({ ...common(name, help), labelNames: [...labels], collect });
      };
      report(name, help);
      if (former !== undefined) report(former, `Deprecated: use ${PREFIX}${name}.`);
      return counts.add;
    },
    gauge(name, help, labels) {
      const gauge = new prometheus.Gauge({ ...common(name, help), labelNames: [...labels] });
      return (labels, to) => gauge.set(labels, to);
    },
    watch(name, help, read) {
      const gauge: Gauge = new prometheus.Gauge({ ...common(name, help), collect: () => gauge.set(read()) });
    },
    table(name, help, labels, read) {
      const collect = () => {
        gauge.reset();
        for (const row of read()) gauge.set(row.labels, row.value);
      };
      const gauge: Gauge = new prometheus.Gauge({ ...common(name, help), labelNames: [...labels], collect });
    },
    histogram(name, help, { labels, buckets }) {
      const histogram = new prometheus.Histogram({ ...common(name, help), labelNames: [...labels], buckets: [...buckets] });
      return (labels, value) => histogram.observe(labels, value);
    },
    render: () => register.metrics(),
  };
}

interface Count<Name extends string> {
  labels: Labels<Name>;
  value: number;
}

interface Counts<Name extends string> {
  add(this: void, labels: Labels<Name>, by?: number): void;
  rows(this: void): Iterable<Count<Name>>;
}

/** The counts below one value of a label, by the values of the next one. */
interface Branch<Name extends string> {
  count: Count<Name> | undefined;
  next: Map<string, Branch<Name>>;
}

/** Adds up counts by labels. prom-client gets the sums at each scrape: it checks, sorts and joins
 *  the labels at each call, which takes four times as long as finding them in a tree. */
function createCounts<Name extends string>(names: readonly Name[]): Counts<Name> {
  const root: Branch<Name> = { count: undefined, next: new Map() };
  const all: Count<Name>[] = [];

  function find(labels: Labels<Name>): Branch<Name> {
    let branch = root;
    for (const name of names) {
      let next = branch.next.get(labels[name]);
      if (next === undefined) branch.next.set(labels[name], (next = { count: undefined, next: new Map() }));
      branch = next;
    }
    return branch;
  }

  return {
    add(labels, by = 1) {
      const branch = find(labels);
      if (branch.count === undefined) all.push((branch.count = { labels, value: by }));
      else branch.count.value += by;
    },
    rows: () => all,
  };
}
