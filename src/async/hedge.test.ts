import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { hedge } from './hedge.ts';

const forever = new AbortController().signal;
const never = () => false;

/** Candidates that answer after so many ms, or fail when that is negative. */
function attempts(plan: Record<string, number>) {
  const signals = new Map<string, AbortSignal>();
  const attempt = async (name: string, signal: AbortSignal): Promise<string> => {
    signals.set(name, signal);
    const ms = plan[name] ?? 0;
    await delay(Math.abs(ms), undefined, { signal });
    if (ms < 0) throw new Error(name);
    return name;
  };
  return { attempt, signals };
}

test('the first success wins; the next candidate starts at once after a failure, and in parallel to a slow one', async () => {
  const { attempt, signals } = attempts({ failing: -1, slow: 5000, quick: 1, unneeded: 1 });
  const result = await hedge(['failing', 'slow', 'quick', 'unneeded'], { attempt, isFinal: never, patienceMs: 50, signal: forever });
  assert.ok(result.won);
  assert.deepEqual([result.value, result.overtaken], ['quick', ['slow']]);
  assert.deepEqual([...signals.keys()], ['failing', 'slow', 'quick']);
  assert.equal(signals.get('slow')?.aborted, true, 'its work has ended');
  assert.equal(signals.get('quick')?.aborted, false, 'the bytes that it has fetched can still be read');
});

test('a slow candidate still wins when all others fail', async () => {
  const { attempt } = attempts({ slow: 200, failing: -1, last: -1 });
  const result = await hedge(['slow', 'failing', 'last'], { attempt, isFinal: never, patienceMs: 20, signal: forever });
  assert.ok(result.won);
  assert.equal(result.value, 'slow');
});

test('all failures are returned, a final one ends the search, and the caller may leave', async () => {
  const all = await hedge(['a', 'b'], { ...attempts({ a: -1, b: -1 }), isFinal: never, patienceMs: 50, signal: forever });
  assert.deepEqual(all.won ? undefined : all.failures.map(({ candidate }) => candidate), ['a', 'b']);
  const { attempt, signals } = attempts({ slow: 5000, final: -1, c: 1 });
  const ended = await hedge(['slow', 'final', 'c'], { attempt, isFinal: (name) => name === 'final', patienceMs: 10, signal: forever });
  assert.equal(ended.won, false);
  assert.equal(signals.get('slow')?.aborted, true);
  assert.equal(signals.has('c'), false);
  const leaving = hedge(['slow'], { ...attempts({ slow: 5000 }), isFinal: never, patienceMs: 10, signal: AbortSignal.timeout(20) });
  await assert.rejects(leaving, { name: 'TimeoutError' });
});
