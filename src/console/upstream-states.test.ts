import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createUpstreamStates } from './upstream-states.ts';

test('the response time of an upstream is that of its requests, not a bound above it', () => {
  const states = createUpstreamStates();
  for (let n = 0; n < 9; n++) states.asked('ghcr', 'ok', 5.1);
  states.asked('ghcr', 'absent', 30);
  states.asked('ghcr', 'failed', 0.001);
  const { latency } = states.read('ghcr');
  assert.equal(latency?.requests, 10, 'a failure has no response time');
  assert.ok(Math.abs(latency.p50 - 5100) < 1, String(latency.p50));
  assert.ok(Math.abs(latency.p95 - 30_000) < 1, String(latency.p95));
});
