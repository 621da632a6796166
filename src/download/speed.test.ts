import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSpeed, partsAt } from './speed.ts';

const MiB = 2 ** 20;

/** A download whose first headers came after `roundTripMs`, `received` bytes later at `ms`, in
 *  chunks of `chunkBytes`. */
function at(
  ms: number,
  { received, roundTripMs = 0, chunkBytes = 16 * 1024 }: { received: number; roundTripMs?: number; chunkBytes?: number },
) {
  let now = 0;
  const speed = createSpeed(() => now);
  now = roundTripMs;
  speed.opened();
  now = ms;
  for (let bytes = 0; bytes < received; bytes += chunkBytes) speed.arrived(chunkBytes);
  return speed;
}

test('promise 6: an additional connection pays off when bytes arrive slowly and much is left', () => {
  assert.equal(at(500, { received: 4 * MiB }).worth(4 * MiB, 60 * MiB, 1), 4 * MiB);
  assert.equal(at(50, { received: MiB }).worth(MiB, 60 * MiB, 1), undefined, 'measured for too short a time');
  assert.equal(at(500, { received: 4 * MiB }).worth(4 * MiB, 10 * MiB, 1), undefined, 'it ends within two seconds');
  const crowded = at(500, { received: 8 * MiB, chunkBytes: 256 * 1024 });
  assert.equal(crowded.worth(8 * MiB, 600 * MiB, 1), undefined, 'the bytes wait for their reader');
  const far = at(1000, { received: 8 * MiB, roundTripMs: 200 }).worth(8 * MiB, 600 * MiB, 1);
  assert.ok(far !== undefined && far > 16 * MiB, 'a round trip is short compared with the time that the connection saves');
});

test('promise 6: the speed per connection of an upstream is learned when an additional connection has paid off', () => {
  let now = 0;
  const speed = createSpeed(() => now);
  speed.opened();
  now = 1000;
  speed.hired(8 * MiB, 1);
  now = 2000;
  assert.equal(speed.pace(16 * MiB), undefined, 'it was not faster');
  assert.deepEqual(speed.pace(24 * MiB), { rate: (8 * MiB) / 1000, roundTripMs: 0 });
});

test('promise 6: a download starts with as many connections as have enough bytes to fetch', () => {
  const pace = { rate: 8000, roundTripMs: 20 };
  for (const [left, parts] of [
    [10 * MiB, 1],
    [16 * MiB, 4],
    [600 * MiB, 4],
  ] as const)
    assert.equal(partsAt(pace, { left, max: 4 }), parts, `${left}`);
  assert.equal(partsAt({ rate: 8000, roundTripMs: 1000 }, { left: 160 * MiB, max: 4 }), 2);
});
