import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { readRows, sortRows } from '../docs/compatibility.ts';

test('every row of docs/compatibility.md names a test that records it', () => {
  const rows = readRows();
  assert.deepEqual(rows, sortRows(rows));
  for (const row of rows) {
    const source = readFileSync(join(import.meta.dirname, '..', row.test), 'utf8');
    assert.match(source, /recordCompatibility\(import\.meta\.filename/, row.test);
    assert.ok(row.version !== '' && row.what.en !== '' && row.what.zh !== '', JSON.stringify(row));
  }
});
