import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseDocument } from '../subscription/yaml/compose.ts';
import { encodeConfig } from './encode.ts';

test('a config is written so that mihomo reads every character of it', () => {
  const odd = 'DEL \x7F, NEL \x85, LS \u2028, PS \u2029, BOM \uFEFF, \uFFFF, tab \t, bell \x07, 香港 🇭🇰, "quoted" \\';
  const text = encodeConfig({ [odd]: odd, half: '\uD83C', list: [1, true, null] });
  // oxlint-disable-next-line no-control-regex -- what yaml v3 refuses in its input (readerc.go)
  assert.doesNotMatch(text, /[\x00-\x1F\x7F-\x9F\u2028\u2029\uFEFF\uFFFE\uFFFF]/);
  assert.deepEqual(parseDocument(text).value, { [odd]: odd, half: '\uFFFD', list: [1, true, null] });
});
