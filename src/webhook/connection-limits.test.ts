import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createConnectionLimits } from './connection-limits.ts';

function open(limits: ReturnType<typeof createConnectionLimits>, address: string, count: number): number {
  return Array.from({ length: count }, () => limits.accept(address)).filter(Boolean).length;
}

test("a burst of an API server's is accepted, and one address cannot take every connection", () => {
  const limits = createConnectionLimits(() => 0);
  assert.equal(open(limits, 'api server', 300), 300);
  assert.equal(open(limits, 'pod', 2_000), 400);
  assert.equal(open(limits, 'another pod', 2_000), 300, 'and in all there are 1,000');
  for (let left = 100; left > 0; left--) limits.closed('pod');
  assert.equal(open(limits, 'api server', 100), 100);
});

test('reopened connections are limited by rate, and by the requests sent over them', () => {
  let time = 0;
  const limits = createConnectionLimits(() => time);
  const reconnect = (address: string, count: number): number => {
    const accepted = open(limits, address, count);
    for (let left = accepted; left > 0; left--) limits.closed(address);
    return accepted;
  };
  assert.equal(
    [1, 2, 3, 4].reduce((sum) => sum + reconnect('pod', 300), 0),
    1_000,
  );
  time += 1_000;
  assert.equal(reconnect('pod', 300), 100, 'a second later');
  time += 60_000;
  for (let count = 0; count < 20; count++) limits.violation('pod');
  assert.equal(reconnect('pod', 300), 0, 'twenty failed requests');
  assert.equal(reconnect('api server', 300), 300, 'other clients are not delayed');
  time += 1_000;
  assert.equal(reconnect('pod', 300), 100);
});

test('addresses are forgotten, but for those with connections', () => {
  const limits = createConnectionLimits(() => 0);
  assert.equal(open(limits, 'pod', 400), 400);
  for (let count = 0; count < 5_000; count++) {
    limits.accept(`scan ${count}`);
    limits.closed(`scan ${count}`);
  }
  assert.equal(open(limits, 'pod', 1), 0, 'its connections are still counted');
});
