import { otherProgram, programOf } from '../test/support/program.ts';
import {
  isLessBetter,
  type ContestantResult,
  type Contestants,
  type Row,
  type RowResult,
  type Target,
  type TargetResult,
  type Unit,
} from './row.ts';

export interface RunOptions {
  turns: number;
  /** Another checkout of this project, whose program takes part in each turn. */
  beside?: string | undefined;
  onTurn(this: void, contestant: string, turn: number, value: number): void;
}

/** Runs a row: every contestant warms up, then all take turns (A B, B A, A B …), so that
 *  disturbances of the machine, and what one turn leaves to the next, affect all of them.
 *  @throws Error: a part of the benchmark does not work */
export async function runRow(row: Row, { turns, beside, onTurn }: RunOptions): Promise<RowResult> {
  await using stack = new AsyncDisposableStack();
  const contestants = await row.open(stack);
  const targets = [...row.targets];
  if (beside !== undefined) {
    const former = await openBeside(row, beside, stack);
    Object.assign(contestants, former.contestants);
    targets.push(...former.targets);
  }
  const { values, cpuSeconds } = await takeTurns(contestants, turns, onTurn);
  return {
    name: row.name,
    title: row.title,
    unit: row.unit,
    measuredAt: Date.now(),
    contestants: [...values].map(([name, values]) => summarize(name, { values, cpuSeconds: cpuSeconds.get(name), unit: row.unit })),
    targets: targets.map((target) => (target.measure === 'cpu' ? judge(target, cpuSeconds, 'seconds') : judge(target, values, row.unit))),
  };
}

/** A row is to be at least this good as it was in the other checkout. */
const AT_LEAST = 0.95;

/** Contestants that are other programs. */
const OTHERS: ReadonlySet<string> = new Set(['distribution', 'nginx', 'upstream', 's3']);

/** The contestants of a row that this project provides, as another checkout has them; and the
 *  targets that compare both. */
async function openBeside(
  row: Row,
  checkout: string,
  stack: AsyncDisposableStack,
): Promise<{ contestants: Contestants; targets: Target[] }> {
  const program = await programOf(checkout);
  const all = await otherProgram.run(program, () => row.open(stack));
  const limit = isLessBetter(row.unit) ? { atMost: 1 / AT_LEAST } : { atLeast: AT_LEAST };
  const nameOf = (name: string): string => `${name}, other checkout`;
  const own = Object.entries(all).filter(([name]) => !OTHERS.has(name));
  return {
    contestants: Object.fromEntries(
      own.map(([name, take]) => [nameOf(name), (turn: number) => otherProgram.run(program, () => take(turn))]),
    ),
    targets: own.map(([of]) => ({ of, against: nameOf(of), ...limit })),
  };
}

function summarize(
  name: string,
  { values, cpuSeconds, unit }: { values: number[]; cpuSeconds: number[] | undefined; unit: Unit },
): ContestantResult {
  return {
    name,
    values,
    median: median(values),
    best: best(values, unit),
    ...(cpuSeconds === undefined ? {} : { cpuSeconds: { values: cpuSeconds, median: median(cpuSeconds) } }),
  };
}

/** The value of each contestant in each turn. */
interface Taken {
  values: Map<string, number[]>;
  cpuSeconds: Map<string, number[]>;
}

async function takeTurns(
  contestants: Contestants,
  turns: number,
  onTurn: (contestant: string, turn: number, value: number) => void,
): Promise<Taken> {
  const taken: Taken = { values: new Map(), cpuSeconds: new Map() };
  const add = (to: Map<string, number[]>, name: string, value: number): void => void to.set(name, [...(to.get(name) ?? []), value]);
  for (let turn = 0; turn <= turns; turn++) {
    const order = Object.entries(contestants);
    for (const [name, take] of turn % 2 === 0 ? order : order.toReversed()) {
      const measured = await take(turn);
      const value = typeof measured === 'number' ? measured : measured.value;
      onTurn(name, turn, value);
      if (turn === 0) continue;
      add(taken.values, name, value);
      if (typeof measured !== 'number') add(taken.cpuSeconds, name, measured.cpuSeconds);
    }
  }
  return taken;
}

/** Compares turn by turn, because contestants of one turn ran under the same conditions. */
export function judge(target: Target, values: ReadonlyMap<string, readonly number[]>, unit: Unit): TargetResult {
  const own = values.get(target.of) ?? [];
  const others = target.against === undefined ? undefined : (values.get(target.against) ?? []);
  const compare = (one: number, other: number | undefined): number =>
    other === undefined ? one : target.as === 'difference' ? one - other : one / other;
  const each = own.map((value, turn) => compare(value, others?.[turn]));
  const middle = median(each);
  const { atLeast = -Infinity, atMost = Infinity } = target;
  return {
    target,
    median: middle,
    spread: [Math.min(...each), Math.max(...each)],
    best: compare(best(own, unit), others === undefined ? undefined : best(others, unit)),
    reached: middle >= atLeast && middle <= atMost,
  };
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((one, other) => one - other);
  const middle = Math.floor(sorted.length / 2);
  const [low = Number.NaN, high = Number.NaN] = [sorted[Math.ceil(sorted.length / 2) - 1], sorted[middle]];
  return (low + high) / 2;
}

function best(values: readonly number[], unit: Unit): number {
  return isLessBetter(unit) ? Math.min(...values) : Math.max(...values);
}
