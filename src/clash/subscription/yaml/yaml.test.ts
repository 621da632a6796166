import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseDocument } from './compose.ts';
import { YamlError } from './cursor.ts';

/** Values as go.yaml.in/yaml v3.0.5 reads them, which mihomo 1.19.32 uses; integers beyond 2^53
 *  as text. */
const READ: [string, string, unknown][] = [
  ['brackets that close at column 0', 'proxies: [\n{name: a}\n]\nrules: [\nx\n]\n', { proxies: [{ name: 'a' }], rules: ['x'] }],
  ['a flow map that goes on further left', 'p:\n    - {name: a,\n  port: 1}\n', { p: [{ name: 'a', port: 1 }] }],
  ['a comment right behind a brace', 'p:\n- {name: a}#first\n- b # c\n', { p: [{ name: 'a' }, 'b'] }],
  ['only the first document', 'a: 1\n---\nb: [\n', { a: 1 }],
  ['a document behind a directive', '%YAML 1.1\n---\na: 1\n...\n', { a: 1 }],
  ['a key that stands twice', 'a: {b: 1, b: 2}', { a: { b: 2 } }],
  [
    '!!binary, and tags of the provider',
    'a: !!binary "Z29vZA=="\nb: !<str> 0123\nc: !x y\nd: !!str 7',
    { a: 'good', b: '0123', c: 'y', d: '7' },
  ],
  ['sequences at the column of their key', 'a:\n- b: 1\n  c: 2\n-\n  d\n- - e\ne: f', { a: [{ b: 1, c: 2 }, 'd', ['e']], e: 'f' }],
  ['merged maps, own keys first', 'x: &x {u: 1, v: 1}\ny: {<<: [*x, {v: 2, w: 2}], u: 3}', { x: { u: 1, v: 1 }, y: { v: 1, w: 2, u: 3 } }],
  ['numbers', '[1, 0x1F, 017, 0o17, 0b11, 1_000, 1e5, .5, -3, +4, 08]', [1, 31, 15, 15, 3, 1000, 100_000, 0.5, -3, 4, 8]],
  [
    'integers beyond 2^53',
    '[99999999999999999, -9007199254740993, 0xFFFFFFFFFFFFFFFF]',
    ['99999999999999999', '-9007199254740993', '18446744073709551615'],
  ],
  ['words', '[true, True, ~, null, "", yes, off, y]', [true, true, null, null, '', 'yes', 'off', 'y']],
  ['quotes', `['it''s', "\\x7F\\u9999\\U0001F1ED\\e", "a\\\n  b", "c\n\n d", 'e\n f']`, ["it's", '\x7F香🇭\x1B', 'ab', 'c\nd', 'e f']],
  ['blocks', 'a: |\n  x\n   y\n\n  z\nb: >-\n  f\n  g\n\n  h\nc: |2+\n   i\n\n', { a: 'x\n y\n\nz\n', b: 'f g\nh', c: ' i\n\n' }],
  ['plain text of several lines, and with colons', 'a: b\n  c:d\n  ?e\nf: g#h # i', { a: 'b c:d ?e', f: 'g#h' }],
  ['complex keys, and keys without a value', '? a\n: c\n? d\ne:\n7: h', { a: 'c', d: null, e: null, 7: 'h' }],
  ['flow pairs', '[a: b, {c, "d":e, ? f : g}]', [{ a: 'b' }, { c: null, d: 'e', f: 'g' }]],
  ['line ends of every kind', 'a: 1\r\nb: 2\rc: 3\u0085d: 4\u2028e: 5', { a: 1, b: 2, c: 3, d: 4, e: 5 }],
  ['keys of JavaScript', '__proto__: {a: 1}\nconstructor: 2', JSON.parse('{"__proto__": {"a": 1}, "constructor": 2}')],
  ['nothing', '# only a comment\n', null],
];

for (const [what, text, expected] of READ) {
  test(`YAML is read as mihomo reads it: ${what}`, () => {
    assert.deepEqual(parseDocument(text).value, expected);
  });
}

const REFUSED: [string, string, number][] = [
  ['a bracket that is not closed', 'a: [b\nc: d\n', 1],
  ['a quote that is not closed', 'a: 1\nb: "c\n', 1],
  ['a tab that indents', 'a:\n\tb: 1', 1],
  ['two colons in a line', 'a: b: c', 0],
  ['an unknown anchor', 'a: *b', 0],
  ['a character that starts nothing', 'a: @b', 0],
  ['an unknown escape', String.raw`a: "\q"`, 0],
  ['half a surrogate', String.raw`a: "\uD800"`, 0],
  ['an anchor that contains itself', 'a: &a [*a]', 0],
  ['a list that goes on as a map', 'a:\n  - b\n  c: d', 2],
];

for (const [what, text, line] of REFUSED) {
  test(`YAML is refused where mihomo refuses it: ${what}`, () => {
    assert.throws(
      () => parseDocument(text),
      (error: unknown) => error instanceof YamlError && error.line === line,
    );
  });
}

test('keys that stand twice in one map are named by their lines', () => {
  assert.deepEqual(parseDocument('a: 1\nb: {c: 1,\n c: 2}\na: 3').repeated, [3, 4]);
});
