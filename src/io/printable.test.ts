import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { printable, printableLines } from './printable.ts';

test('text from outside cannot clear a terminal, set its title, write its clipboard, add a line or turn the direction', () => {
  const rows: [string, string][] = [
    ['\u001b[2K\u001b[1A', '\\u001b[2K\\u001b[1A'],
    ['\u001b]52;c;ZQ==\u0007', '\\u001b]52;c;ZQ==\\u0007'],
    ['a\nb\r\tc', 'a\\nb\\r\\tc'],
    ['\u009b31m', '\\u009b31m'],
    ['\u202egnp.exe', '\\u202egnp.exe'],
    ['ghcr.io/x/y:1 日本 🇭🇰', 'ghcr.io/x/y:1 日本 🇭🇰'],
  ];
  for (const [text, expected] of rows) assert.equal(printable(text), expected);
});

test('JSON that is made printable holds the same values', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string({ unit: 'binary' }), fc.string({ unit: 'binary' })), (value) => {
      const json = printableLines(JSON.stringify(value, undefined, 2));
      assert.deepEqual(JSON.parse(json), JSON.parse(JSON.stringify(value)));
      // oxlint-disable-next-line no-control-regex
      assert.doesNotMatch(json, /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202e]/);
    }),
  );
});
