import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLru } from './lru.ts';

test('what was used least recently goes first, and asking for it counts as use', () => {
  const lru = createLru<number>(3);
  for (const [key, value] of Object.entries({ a: 1, b: 2, c: 3 })) lru.set(key, value);
  assert.equal(lru.get('a'), 1);
  assert.equal(lru.get('c'), 3);
  lru.set('d', 4);
  assert.equal(lru.get('b'), undefined);
  lru.set('e', 5);
  assert.deepEqual(
    ['a', 'c', 'd', 'e'].map((key) => lru.get(key)),
    [undefined, 3, 4, 5],
  );
});

test('the weights of all entries stay below the limit, those that were replaced or taken out not counted', () => {
  const lru = createLru<string>(10, (value) => value.length);
  lru.set('a', 'x'.repeat(9));
  lru.set('a', 'xxxx');
  lru.set('b', 'xxxx');
  lru.delete('a');
  lru.delete('a');
  lru.set('c', 'xxxxxx');
  assert.deepEqual(
    ['a', 'b', 'c'].map((key) => lru.get(key)?.length),
    [undefined, 4, 6],
  );
  lru.set('d', 'x'.repeat(11));
  assert.deepEqual(
    ['b', 'c', 'd'].map((key) => lru.get(key)),
    [undefined, undefined, undefined],
  );
  lru.set('e', 'xxxxxxxxxx');
  assert.equal(lru.get('e')?.length, 10);
});

test('an entry may be used and taken out wherever it stands', () => {
  const lru = createLru<number>(3);
  for (const key of ['a', 'b', 'c']) lru.set(key, 0);
  lru.delete('b');
  lru.delete('c');
  lru.delete('a');
  for (const key of ['d', 'e', 'f']) lru.set(key, 1);
  lru.get('e');
  lru.get('d');
  lru.set('g', 1);
  assert.deepEqual(
    ['d', 'e', 'f', 'g'].map((key) => lru.get(key)),
    [1, 1, undefined, 1],
  );
});
