import type { Totals } from './api/overview.ts';
import type { History } from './api/history.ts';

/** The counts of one point: sums over its time, except `latencyMax`, which is the maximum. */
const FIELDS = [
  'requests',
  'hits',
  'misses',
  'stale',
  'errors',
  'denied',
  'sentBytes',
  'upstreamBytes',
  'upstreamRequests',
  'latencySum',
  'latencyMax',
  'answers',
  'answerSum',
] as const;
type Field = (typeof FIELDS)[number];
export type Counts = Record<Field, number>;

/** The two time windows, each a ring of points. */
const WINDOWS = { hour: { stepSeconds: 10, points: 360 }, day: { stepSeconds: 300, points: 288 } } as const;
export type Window = keyof typeof WINDOWS;

/** How late a count may be in the rings, in ms. */
const SETTLED_AFTER_MS = 1000;

/** Counts of the last hour and day, in memory: 650 points of 13 numbers each. */
export interface HistoryRing {
  /** The counts of this moment, to be added to. Do not keep them: the next moment has a new
   *  object. */
  now(this: void): Counts;
  /** A request to an upstream. @param seconds until its headers */
  asked(this: void, seconds: number): void;
  /** A manifest request has been answered. */
  answered(this: void, seconds: number): void;
  read(this: void, window: Window): Omit<History, 'unreachable'>;
  /** Counts since the process started. */
  totals(this: void): Totals;
  /** Counts of the last hour. */
  hour(this: void): Totals;
}

export function createHistory(): HistoryRing {
  const rings = { hour: createRing(WINDOWS.hour), day: createRing(WINDOWS.day) };
  const sums = emptyCounts();
  /** The counts of the last second at most, which are not yet in a ring: most requests change only
   *  these, and need no clock for that. */
  let latest = emptyCounts();
  let since = 0;
  let settling: NodeJS.Timeout | undefined;

  function settle(): void {
    if (settling === undefined) return;
    clearTimeout(settling);
    settling = undefined;
    for (const total of [sums, rings.hour.slot(since), rings.day.slot(since)]) add(total, latest);
    latest = emptyCounts();
  }

  function countsNow(): Counts {
    if (settling === undefined) {
      since = Date.now();
      settling = setTimeout(settle, SETTLED_AFTER_MS).unref();
    }
    return latest;
  }

  return {
    now: countsNow,
    asked(seconds) {
      const counts = countsNow();
      counts.upstreamRequests++;
      counts.latencySum += seconds * 1000;
      counts.latencyMax = Math.max(counts.latencyMax, seconds * 1000);
    },
    answered(seconds) {
      const counts = countsNow();
      counts.answers++;
      counts.answerSum += seconds * 1000;
    },
    read(window) {
      settle();
      return describe(window, rings[window].read(Date.now()));
    },
    totals() {
      settle();
      return totalsOf([sums]);
    },
    hour() {
      settle();
      return totalsOf(rings.hour.read(Date.now()).slots);
    },
  };
}

function add(total: Counts, counts: Counts): void {
  for (const field of FIELDS) {
    total[field] = field === 'latencyMax' ? Math.max(total[field], counts[field]) : total[field] + counts[field];
  }
}

function emptyCounts(): Counts {
  return Object.fromEntries(FIELDS.map((field) => [field, 0])) as Counts;
}

function createRing({ stepSeconds, points }: { stepSeconds: number; points: number }) {
  const step = stepSeconds * 1000;
  const slots = Array.from({ length: points }, () => ({ index: -1, counts: emptyCounts() }));

  return {
    /** The point of the current time. */
    slot(at: number): Counts {
      const index = Math.floor(at / step);
      const slot = slots[index % points]!;
      if (slot.index !== index) Object.assign(slot, { index, counts: emptyCounts() });
      return slot.counts;
    },
    /** Oldest first. */
    read(at: number): { since: number; slots: Counts[] } {
      const last = Math.floor(at / step);
      const first = last - points + 1;
      const own = Array.from({ length: points }, (_, offset) => {
        const slot = slots[(first + offset) % points]!;
        return slot.index === first + offset ? slot.counts : emptyCounts();
      });
      return { since: first * step, slots: own };
    },
  };
}

function describe(window: Window, { since, slots }: { since: number; slots: Counts[] }): Omit<History, 'unreachable'> {
  const column = (field: Field) => slots.map((slot) => slot[field]);
  const mean = (sum: Field, of: Field) => slots.map((slot) => (slot[of] === 0 ? null : slot[sum] / slot[of]));
  return {
    window,
    stepSeconds: WINDOWS[window].stepSeconds,
    since: new Date(since).toISOString(),
    requests: column('requests'),
    hits: slots.map(({ hits, stale }) => hits + stale),
    misses: column('misses'),
    errors: column('errors'),
    sentBytes: column('sentBytes'),
    upstreamBytes: column('upstreamBytes'),
    upstreamRequests: column('upstreamRequests'),
    latencyMs: mean('latencySum', 'upstreamRequests'),
    latencyMaxMs: slots.map(({ upstreamRequests, latencyMax }) => (upstreamRequests === 0 ? null : latencyMax)),
    manifests: column('answers'),
    answerMs: mean('answerSum', 'answers'),
  };
}

/** The sums of several counts: of points of time, or of replicas. */
export function totalsOf(parts: readonly Totals[]): Totals {
  const sum = (field: keyof Totals) => parts.reduce((total, part) => total + part[field], 0);
  return {
    requests: sum('requests'),
    hits: sum('hits'),
    misses: sum('misses'),
    stale: sum('stale'),
    errors: sum('errors'),
    denied: sum('denied'),
    sentBytes: sum('sentBytes'),
    upstreamBytes: sum('upstreamBytes'),
  };
}

/** Merges the histories of several replicas. Their clocks may differ by one point. */
export function mergeHistories(
  own: Omit<History, 'unreachable'>,
  others: readonly Omit<History, 'unreachable'>[],
): Omit<History, 'unreachable'> {
  return others.reduce(merge, own);
}

const SUMS = ['requests', 'hits', 'misses', 'errors', 'sentBytes', 'upstreamBytes', 'upstreamRequests', 'manifests'] as const;

function merge(one: Omit<History, 'unreachable'>, other: Omit<History, 'unreachable'>): Omit<History, 'unreachable'> {
  const shift = Math.round((Date.parse(one.since) - Date.parse(other.since)) / 1000 / one.stepSeconds);
  const at = <Value>(series: readonly Value[], index: number) => series[index + shift];
  const weighted = (values: 'latencyMs' | 'answerMs', weights: 'upstreamRequests' | 'manifests') =>
    one[values].map((value, index) => {
      const [mine, theirs] = [one[weights][index] ?? 0, at(other[weights], index) ?? 0];
      if (mine + theirs === 0) return null;
      return ((value ?? 0) * mine + (at(other[values], index) ?? 0) * theirs) / (mine + theirs);
    });
  const sums = Object.fromEntries(SUMS.map((name) => [name, one[name].map((value, index) => value + (at(other[name], index) ?? 0))]));
  return {
    ...one,
    ...(sums as Pick<History, (typeof SUMS)[number]>),
    latencyMs: weighted('latencyMs', 'upstreamRequests'),
    answerMs: weighted('answerMs', 'manifests'),
    latencyMaxMs: one.latencyMaxMs.map((value, index) => maximum(value, at(other.latencyMaxMs, index) ?? null)),
  };
}

function maximum(one: number | null, other: number | null): number | null {
  return one === null || other === null ? (one ?? other) : Math.max(one, other);
}
