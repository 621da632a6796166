import type { Contestants, Row, RowResult, Target, TargetResult, Unit } from './row.ts';

/** Runs a row: every contestant warms up, then all of them in turns (A B A B …), so that what disturbs the machine disturbs all.
 *  @throws Error: something that has to work does not */
export async function runRow(
  row: Row,
  turns: number,
  onTurn: (contestant: string, turn: number, value: number) => void,
): Promise<RowResult> {
  await using stack = new AsyncDisposableStack();
  const contestants = await row.open(stack);
  const values = await takeTurns(contestants, turns, onTurn);
  return {
    name: row.name,
    title: row.title,
    unit: row.unit,
    measuredAt: Date.now(),
    contestants: [...values].map(([name, values]) => ({ name, values, median: median(values), best: best(values, row.unit) })),
    targets: row.targets.map((target) => judge(target, values, row.unit)),
  };
}

async function takeTurns(
  contestants: Contestants,
  turns: number,
  onTurn: (contestant: string, turn: number, value: number) => void,
): Promise<Map<string, number[]>> {
  const values = new Map<string, number[]>();
  for (let turn = 0; turn <= turns; turn++) {
    for (const [name, take] of Object.entries(contestants)) {
      const value = await take(turn);
      onTurn(name, turn, value);
      if (turn > 0) values.set(name, [...(values.get(name) ?? []), value]);
    }
  }
  return values;
}

/** Compares turn by turn: neighbours in time saw the same machine. */
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
  return unit === 'seconds' || unit === 'bytes' ? Math.min(...values) : Math.max(...values);
}
