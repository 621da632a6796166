import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createSegment, createSegments, type Segment } from './segments.ts';
import { createByteRanges } from './spool/byte-ranges.ts';

const MiB = 2 ** 20;
const SIZE = 64 * MiB;

/** What can happen to the connections of a download. `which` chooses one of those that run. */
type Step =
  | { kind: 'bytes'; which: number; count: number }
  | { kind: 'writing'; which: number; count: number }
  | { kind: 'half' }
  | { kind: 'reader'; position: number }
  | { kind: 'idle' }
  | { kind: 'fails'; which: number };

const which = fc.nat(10);
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ kind: fc.constant('bytes' as const), which, count: fc.integer({ min: 1, max: 8 * MiB }) }),
  fc.record({ kind: fc.constant('writing' as const), which, count: fc.integer({ min: 1, max: MiB }) }),
  fc.record({ kind: fc.constant('half' as const) }),
  fc.record({ kind: fc.constant('reader' as const), position: fc.nat(SIZE - 1) }),
  fc.record({ kind: fc.constant('idle' as const) }),
  fc.record({ kind: fc.constant('fails' as const), which }),
);

function setUp(start: number) {
  const have = createByteRanges();
  const segments = createSegments(have);
  /** Every byte range that was downloaded: no byte may be downloaded twice. */
  const brought: [number, number][] = [];
  segments.start(createSegment(start, Infinity));
  segments.limit(SIZE);

  function bring(segment: Segment, count: number): void {
    const end = Math.min(segment.end, segment.position + count);
    if (end <= segment.position) return;
    brought.push([segment.position, end]);
    have.add(segment.position, end);
    segment.position = segment.reach = end;
  }

  function apply(taken: Step): void {
    const running = [...segments.active];
    const chosen = 'which' in taken ? running[taken.which % Math.max(1, running.length)] : undefined;
    if (taken.kind === 'bytes' && chosen !== undefined) bring(chosen, taken.count);
    if (taken.kind === 'writing' && chosen !== undefined) chosen.reach = Math.min(chosen.end, chosen.position + taken.count);
    if (taken.kind === 'fails' && chosen !== undefined) segments.stop(chosen);
    const next =
      taken.kind === 'half'
        ? segments.half(4 * MiB)
        : taken.kind === 'reader'
          ? segments.at(taken.position, SIZE)
          : taken.kind === 'idle'
            ? segments.largest(SIZE)
            : undefined;
    if (next !== undefined) segments.start(next);
  }
  return { have, segments, brought, bring, apply };
}

const run = fc.tuple(fc.nat(SIZE - 1), fc.array(step, { maxLength: 60 }));

test('promise 6: no byte is assigned to two connections, whichever segments are split, taken over or returned', () => {
  fc.assert(
    fc.property(run, ([start, steps]) => {
      const { segments, apply, have } = setUp(start);
      for (const taken of steps) {
        apply(taken);
        const open = [...segments.active].filter(({ position, end }) => position < end).sort((a, b) => a.position - b.position);
        for (const [index, { end, reach }] of open.entries()) {
          const after = open[index + 1]?.position ?? SIZE;
          assert.ok(end <= after && reach <= after, JSON.stringify(open));
        }
        for (const { position, end } of open)
          assert.deepEqual(have.gaps(position, end), [[position, end]], 'bytes that have arrived are not requested again');
      }
    }),
  );
});

test('promise 6: every byte arrives exactly once, whatever fails on the way', () => {
  fc.assert(
    fc.property(run, ([start, steps]) => {
      const { segments, apply, bring, have, brought } = setUp(start);
      for (const taken of steps) apply(taken);
      // The remaining connections download their parts; an idle one takes the largest missing
      // part.
      for (let turns = 0; have.gaps(0, SIZE).length > 0; turns++) {
        assert.ok(turns < 1000, 'it never ends');
        const [segment] = segments.active;
        if (segment === undefined) segments.start(segments.largest(SIZE) ?? assert.fail('what is missing belongs to nobody'));
        else {
          bring(segment, SIZE);
          segments.stop(segment);
        }
      }
      const sum = brought.reduce((total, [from, to]) => total + to - from, 0);
      assert.equal(sum, SIZE);
    }),
  );
});

test('promise 5: a reader far ahead of all connections gets one; a reader close behind none waits for it', () => {
  const { segments, bring } = setUp(0);
  const [first] = segments.active;
  assert.equal(segments.at(MiB, SIZE), undefined, 'the first connection is nearly there');
  const far = segments.at(40 * MiB, SIZE) ?? assert.fail();
  assert.deepEqual([far.position, far.end, first?.end], [40 * MiB, SIZE, 40 * MiB]);
  segments.start(far);
  bring(far, MiB);
  assert.equal(segments.at(40 * MiB, SIZE), undefined, 'it is being fetched already');
});

test('promise 6: the bytes a helper could not fetch go back to the connection before it, without another request', () => {
  const { segments, bring } = setUp(0);
  const [first] = segments.active;
  const helper = segments.half(4 * MiB) ?? assert.fail();
  segments.start(helper);
  assert.equal(first?.end, 32 * MiB);
  segments.stop(helper);
  assert.equal(first?.end, SIZE);
  const second = segments.half(4 * MiB) ?? assert.fail();
  segments.start(second);
  bring(second, MiB);
  segments.stop(second);
  assert.equal(first?.end, second.position - MiB, 'bytes that have arrived are not requested again');
  assert.deepEqual(segments.largest(SIZE), createSegment(second.position, SIZE));
});

test('a segment is not split when the part is too small to pay off', () => {
  const { segments } = setUp(0);
  assert.equal(segments.half(33 * MiB), undefined);
  assert.equal(segments.half(32 * MiB)?.position, 32 * MiB);
});
