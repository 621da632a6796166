import assert from 'node:assert/strict';
import { test } from 'node:test';
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

test('what a tenant wrote stays in its cell and does nothing to the terminal', () => {
  const table = renderTable(
    ['A', 'B'],
    [
      ['x\ny   z', '\u001b[2K'],
      ['1', '2'],
    ],
  );
  assert.deepEqual(table.split('\n').slice(1, 3), ['x\\ny   z   \\u001b[2K', '1          2']);
});
