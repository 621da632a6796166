import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createScores } from './scores.ts';

const alive = (delayMs: number) => ({ outcome: 'alive', delayMs }) as const;
const fastest = { inOrder: false, current: undefined };

test('the fastest living node is used, and a little faster one is no reason to change', () => {
  const scores = createScores();
  assert.equal(scores.best(['a', 'b'], fastest), undefined, 'nothing is known yet');
  scores.record('a', alive(100));
  scores.record('b', alive(80));
  scores.record('c', { outcome: 'dead' });
  const nodes = ['a', 'b', 'c'];
  assert.equal(scores.best(nodes, fastest), 'b');
  assert.equal(scores.best(nodes, { inOrder: false, current: 'a' }), 'a');
  scores.record('b', alive(40));
  assert.equal(scores.best(nodes, { inOrder: false, current: 'a' }), 'b');
  assert.equal(scores.best(nodes, { inOrder: false, current: 'c' }), 'b', 'a dead node is abandoned');
  assert.equal(scores.best(nodes, { inOrder: true, current: 'b' }), 'a', 'a fallback group uses its order');
});

test('a node that the registry refuses is used only if no other one lives', () => {
  const scores = createScores();
  scores.record('refused', { outcome: 'unexpected' });
  scores.record('dead', { outcome: 'dead' });
  const nodes = ['dead', 'refused', 'slow'];
  assert.equal(scores.best(nodes, fastest), 'refused');
  scores.record('slow', alive(3000));
  assert.equal(scores.best(nodes, { inOrder: false, current: 'refused' }), 'slow');
});

test('a node is avoided for ten minutes after two broken downloads within ten minutes', () => {
  let now = 0;
  const scores = createScores(() => now);
  scores.record('a', alive(10));
  scores.record('b', alive(500));
  const nodes = ['a', 'b'];
  assert.equal(scores.complain('a'), false);
  now += 601_000;
  assert.equal(scores.complain('a'), false, 'the first one is forgotten');
  assert.equal(scores.best(nodes, fastest), 'a');
  assert.equal(scores.complain('a'), true);
  assert.equal(scores.best(nodes, { inOrder: false, current: 'a' }), 'b');
  scores.record('b', { outcome: 'dead' });
  assert.equal(scores.best(nodes, fastest), 'a', 'partial values are better than none');
  scores.record('b', alive(500));
  now += 600_001;
  assert.equal(scores.best(nodes, fastest), 'a');
});
