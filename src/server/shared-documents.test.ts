import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseRepository, parseTag, type Tag } from '../oci/reference.ts';
import type { Registry } from '../oci/registry.ts';
import { createMemory } from '../testing/memory-registry.ts';
import { sharedDocuments } from './shared-documents.ts';

const name = parseRepository('library/demo');
const { signal } = new AbortController();

/** A registry whose tag lists come in these pages, each after a moment. */
function listing(pages: readonly (readonly Tag[])[]): { registry: Registry; asked: () => number } {
  let asked = 0;
  const registry: Registry = {
    ...createMemory().registry,
    async *tags() {
      asked++;
      for (const page of pages) {
        await sleep(20);
        yield page;
      }
    },
  };
  return { registry, asked: () => asked };
}

test('clients that ask for the same tag list at the same time share one question and one buffer', async () => {
  const { registry, asked } = listing([[parseTag('a'), parseTag('b')], [parseTag('c')]]);
  const documents = sharedDocuments(registry);
  const all = { repository: name, page: { n: undefined, last: undefined } };
  const lists = await Promise.all(Array.from({ length: 64 }, () => documents.tagList(name, all, { signal })));
  assert.equal(asked(), 1);
  assert.equal(new Set(lists.map(({ bytes }) => bytes)).size, 1);
  assert.deepEqual(JSON.parse(String(lists[0]?.bytes)), { name, tags: ['a', 'b', 'c'] });
  await documents.tagList(name, all, { signal });
  assert.equal(asked(), 2, 'a later caller asks again');
});

test('a page of a tag list has n tags at most, and says whether there are more', async () => {
  const tags = ['a', 'b', 'c', 'd'].map((tag) => parseTag(tag));
  const rows: [number, string[], string | undefined][] = [
    [0, [], undefined],
    [1, ['a'], 'a'],
    [2, ['a', 'b'], 'b'],
    [3, ['a', 'b', 'c'], 'c'],
    [4, ['a', 'b', 'c', 'd'], undefined],
    [5, ['a', 'b', 'c', 'd'], undefined],
  ];
  for (const pages of [[tags], [tags.slice(0, 2), [], tags.slice(2)]]) {
    for (const [n, wanted, next] of rows) {
      const { registry } = listing(pages);
      const list = await sharedDocuments(registry).tagList(name, { repository: name, page: { n, last: undefined } }, { signal });
      assert.deepEqual(JSON.parse(String(list.bytes)), { name, tags: wanted }, `n=${n}`);
      assert.equal(list.next, next, `n=${n}`);
    }
  }
});

test('a list of a million tags leaves turns to other requests while it is written', async () => {
  const { registry } = listing([Array.from({ length: 1_000_000 }, (_, index) => parseTag(`t${index}`))]);
  const turns: number[] = [];
  let last = performance.now();
  const timer = setInterval(() => {
    turns.push(performance.now() - last);
    last = performance.now();
  }, 1);
  const list = await sharedDocuments(registry).tagList(name, { repository: name, page: { n: undefined, last: undefined } }, { signal });
  clearInterval(timer);
  assert.equal((JSON.parse(String(list.bytes)) as { tags: string[] }).tags.length, 1_000_000);
  assert.ok(turns.length >= 5, `${turns.length} turns`);
});
