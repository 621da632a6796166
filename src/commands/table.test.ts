import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import stringWidth from 'string-width';
import { renderTable } from './table.ts';

test('columns line up under wide characters, as a terminal shows them', () => {
  const table = renderTable(
    ['NODE', 'DELAY'],
    [
      ['香港 01', '20 ms'],
      ['🇯🇵 Tokyo', '30 ms'],
      ['plain', '40 ms'],
    ],
  );
  // 香港 01 fills seven columns, 🇯🇵 Tokyo eight: the second is the widest cell.
  assert.equal(table, 'NODE       DELAY\n香港 01    20 ms\n🇯🇵 Tokyo   30 ms\nplain      40 ms\n');
});

test('text from tenants stays in its cell and cannot affect the terminal', () => {
  const table = renderTable(
    ['A', 'B'],
    [
      ['x\ny   z', '\u001b[2K'],
      ['1', '2'],
    ],
  );
  assert.deepEqual(table.split('\n').slice(1, 3), ['x\\ny   z   \\u001b[2K', '1          2']);
});

test('every row puts a column at the same place of the terminal, whatever the cells hold', () => {
  const wide = fc.constantFrom('香港', '🇯🇵', '👩‍👩‍👧', 'e\u0301', 'ﾃｽﾄ', 'ｅ', '한', '❤️', '\u200b', '\u0000', '\u001b[2K', '\n');
  const cell = fc.array(fc.oneof(fc.string({ maxLength: 4 }), wide), { maxLength: 5 }).map((parts) => parts.join(''));
  const table = fc
    .integer({ min: 1, max: 4 })
    .chain((columns) => fc.array(fc.array(cell, { minLength: columns, maxLength: columns }), { minLength: 1 }));
  fc.assert(
    fc.property(table, (rows) => {
      // A last column that is never empty shows where it begins.
      const marked = rows.map((row) => [...row, '|']);
      const lines = renderTable(marked[0] ?? [], marked.slice(1)).split('\n');
      assert.equal(lines.pop(), '');
      assert.equal(lines.length, rows.length, 'a row is one line');
      assert.equal(new Set(lines.map((line) => stringWidth(line))).size, 1, lines.join('\n'));
    }),
  );
});
