/** English and Chinese: the documents exist in both. */
export interface Text {
  en: string;
  zh: string;
}

/** One line of the benchmark: the same work for several contestants, in turns. */
export interface Row {
  /** As `npm run bench -- NAME` has it. */
  name: string;
  title: Text;
  unit: Unit;
  /** Turns, where a turn takes so long that fewer than usual must do. */
  turns?: number;
  targets: readonly Target[];
  /** Starts the contestants, in the order of their turns. What they need belongs to the stack.
   *  @throws Error: something that has to work does not */
  open(stack: AsyncDisposableStack): Promise<Contestants>;
}

/** What is measured. */
export type Unit = 'bytes/s' | 'requests/s' | 'seconds' | 'bytes' | 'round trips';

const LESS_IS_BETTER: ReadonlySet<Unit> = new Set(['seconds', 'bytes', 'round trips']);
export function isLessBetter(unit: Unit): boolean {
  return LESS_IS_BETTER.has(unit);
}

/** By their names, which stand in the tables as they are. */
export type Contestants = Record<string, Turn<number | Measurement>>;

/** Does the work once and gives what was measured. Turn 0 warms up: what comes of it does not count.
 *  @throws Error: something that has to work does not */
export type Turn<Result extends number | Measurement = number> = (turn: number) => Promise<Result>;

/** What a contestant took for its work. */
export interface Measurement {
  /** In the row's unit. */
  value: number;
  /** Seconds of processors that the contestant's own process used, all its threads together. */
  cpuSeconds: number;
}

/** What `of` is to reach: as a ratio to what `against` had in the same turn, as a difference from it, or, without one, by itself. */
export interface Target {
  of: string;
  against?: string;
  /** Processor time instead of the row's value. */
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
  /** Seconds of processors in each turn; absent where they are not measured. */
  cpuSeconds?: { values: number[]; median: number };
}

export interface TargetResult {
  target: Target;
  /** Of the ratios, differences or values of each turn. */
  median: number;
  spread: [least: number, most: number];
  /** The best turn of one beside the best of the other. */
  best: number;
  /** By the median. */
  reached: boolean;
}
