import type { Gauge } from 'prom-client';

const PREFIX = 'kube_registry_';

/** The same labels at every call; their values must be of bounded variety, never what a client sent. */
export type Labels<Name extends string> = Readonly<Record<Name, string>>;

export interface Metrics {
  /** `add(labels, by)`; `name` without the prefix, ending in `_total`. */
  counter<Name extends string>(name: string, help: string, labels: readonly Name[]): (labels: Labels<Name>, by?: number) => void;
  /** `set(labels, to)`. */
  gauge<Name extends string>(name: string, help: string, labels: readonly Name[]): (labels: Labels<Name>, to: number) => void;
  /** A gauge that is read whenever someone looks. */
  watch(name: string, help: string, read: () => number): void;
  /** Gauges that are read whenever someone looks; those that are not among them any more are gone. */
  table<Name extends string>(
    name: string,
    help: string,
    labels: readonly Name[],
    read: () => readonly { labels: Labels<Name>; value: number }[],
  ): void;
  /** `observe(labels, value)`; `buckets` are upper bounds, rising. */
  histogram<Name extends string>(
    name: string,
    help: string,
    shape: { labels: readonly Name[]; buckets: readonly number[] },
  ): (labels: Labels<Name>, value: number) => void;
  /** The Prometheus text format. */
  render(): Promise<string>;
}

/** This process's own metrics, its CPU, memory, file descriptors and event loop among them. The library is loaded here and not
 *  at import: whoever has no metrics does not pay for it. */
export async function createMetrics(): Promise<Metrics> {
  const { default: prometheus } = await import('prom-client');
  const register = new prometheus.Registry();
  // Ten times as coarse as its default: a timer of 10 ms would keep an idle node agent busy.
  prometheus.collectDefaultMetrics({ register, eventLoopMonitoringPrecision: 100 });
  const common = (name: string, help: string) => ({ name: `${PREFIX}${name}`, help, registers: [register] });

  return {
    counter(name, help, labels) {
      const counter = new prometheus.Counter({ ...common(name, help), labelNames: [...labels] });
      return (labels, by = 1) => counter.inc(labels, by);
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
