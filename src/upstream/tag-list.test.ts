import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { isTag } from '../oci/reference.ts';
import { parseTagList, tagsOf } from './tag-list.ts';

const read = async (text: string, pieceBytes?: number) => (await parseTagList(Buffer.from(text), pieceBytes)).flatMap(tagsOf);

function readAtOnce(text: string): unknown[] {
  const { tags } = JSON.parse(text) as { tags?: unknown };
  return Array.isArray(tags) ? tags.filter((tag) => typeof tag === 'string' && isTag(tag)) : [];
}

test('a tag list that is read in pieces has the tags of the whole document', async () => {
  const element = fc.oneof(
    fc.stringMatching(/^[a-z0-9._-]{1,12}$/),
    fc.string({ unit: 'binary' }),
    fc.json().map((text) => JSON.parse(text) as unknown),
  );
  const document = fc.record({
    before: fc.anything({ maxDepth: 2 }),
    tags: fc.oneof(fc.array(element), fc.jsonValue()),
    after: fc.jsonValue(),
  });
  await fc.assert(
    fc.asyncProperty(document, fc.constantFrom(undefined, 1, '\t'), fc.integer({ min: 1, max: 40 }), async (value, indent, pieceBytes) => {
      const text = JSON.stringify(value, (_key, inner: unknown) => (typeof inner === 'bigint' ? String(inner) : inner), indent);
      assert.deepEqual(await read(text, pieceBytes), readAtOnce(text));
    }),
    { numRuns: 60 },
  );
});

test('a large tag list lets others have their turn while it is read', async () => {
  const tags = Array.from({ length: 200_000 }, (_, index) => `v${index}`);
  let turns = 0;
  const timer = setInterval(() => turns++, 0);
  assert.deepEqual(await read(JSON.stringify({ name: 'a', tags })), tags);
  clearInterval(timer);
  assert.ok(turns > 5, `${turns} turns`);
});

test('a tag list that is no JSON is refused, however it is read', async () => {
  for (const text of ['', '<html>', '{"tags":["a","b"', '{"tags":["a" "b"]}', '{"tags":["a",]}', '{"tags":["a\\"]}'])
    for (const pieceBytes of [1, 100]) await assert.rejects(read(text, pieceBytes), SyntaxError, text);
  for (const text of ['{}', '[]', 'null', '{"tags":null}', '{"tags":[]}', '{"x":{"tags":["a"]}}'])
    for (const pieceBytes of [1, 100]) assert.deepEqual(await read(text, pieceBytes), [], text);
});
