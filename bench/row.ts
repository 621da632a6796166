/** English and Chinese, since the documents exist in both. */
export interface Text {
  en: string;
  zh: string;
}

/** One row of the benchmark: the same work for several contestants, alternately. */
export interface Row {
  /** The NAME in `npm run bench -- NAME`. */
  name: string;
  title: Text;
  unit: Unit;
  /** The number of turns, for rows whose turns take long. */
  turns?: number;
  targets: readonly Target[];
  /** Starts the contestants, in the order of their turns. Their resources are owned by the stack.
   *  @throws Error: a part of the benchmark does not work */
  open(stack: AsyncDisposableStack): Promise<Contestants>;
}

/** The measured quantity. */
export type Unit = 'bytes/s' | 'requests/s' | 'seconds' | 'bytes' | 'round trips';

const LESS_IS_BETTER: ReadonlySet<Unit> = new Set(['seconds', 'bytes', 'round trips']);
export function isLessBetter(unit: Unit): boolean {
  return LESS_IS_BETTER.has(unit);
}

/** The contestants by name, as shown in the tables. */
export type Contestants = Record<string, Turn<number | Measurement>>;

/** Does the work once and returns the measured value. Turn 0 is the warm-up, and its result is not
 *  counted.
 *  @throws Error: a part of the benchmark does not work */
export type Turn<Result extends number | Measurement = number> = (turn: number) => Promise<Result>;

/** The measured value of a contestant. */
export interface Measurement {
  /** In the row's unit. */
  value: number;
  /** CPU seconds of the contestant's own process, over all its threads. */
  cpuSeconds: number;
}

/** The target of `of`: as a ratio to `against` in the same turn, as a difference from it, or,
 *  without `against`, as an absolute value. */
export interface Target {
  of: string;
  against?: string;
  /** Compare CPU time instead of the row's value. */
  measure?: 'cpu';
  as?: 'ratio' | 'difference';
  atLeast?: number;
  atMost?: number;
}

export interface RowResult {
  name: string;
  title: Text;
  unit: Unit;
  /** Milliseconds since the epoch. */
  measuredAt: number;
  contestants: ContestantResult[];
  targets: TargetResult[];
}

export interface ContestantResult {
  name: string;
  values: number[];
  median: number;
  best: number;
  /** CPU seconds in each turn; absent if not measured. */
  cpuSeconds?: { values: number[]; median: number };
}

export interface TargetResult {
  target: Target;
  /** The median of the ratios, differences or values of all turns. */
  median: number;
  spread: [least: number, most: number];
  /** The best turn of one compared with the best of the other. */
  best: number;
  /** Judged by the median. */
  reached: boolean;
}
