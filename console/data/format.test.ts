import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseLanguage } from '../language/language.ts';
import { formatBytes, formatDuration, formatMilliseconds, formatRelative, formatRoughly, formatShare, visible } from './format.ts';

/** The space between a number and its unit differs among locales. */
function plain(text: string): string {
  return text.replaceAll(/\s/g, ' ');
}

test('sizes are in the units of the configuration, and never 1024 of one', () => {
  chooseLanguage('en');
  const cases = [
    [0, '0 B'],
    [1023, '1,023 B'],
    [1024, '1.0 KiB'],
    [20 * 2 ** 30, '20.0 GiB'],
    [2 ** 40 - 1, '1.0 TiB'],
    [5.5 * 2 ** 20, '5.5 MiB'],
    [2 ** 80, '1,073,741,824 PiB'],
  ] as const;
  for (const [bytes, expected] of cases) assert.equal(plain(formatBytes(bytes)), expected);
});

test('a share is 100 % only if it is the whole', () => {
  chooseLanguage('en');
  assert.deepEqual([0, 0.5, 0.894, 0.99999, 1].map(formatShare), ['0%', '50%', '89%', '99.9%', '100%']);
});

test('durations have two units at most, times are relative to the present, and each unit has one form', () => {
  chooseLanguage('en');
  assert.equal(plain(formatDuration(3 * 86_400_000 + 4 * 3_600_000 + 59_000)), '3 d 4 h');
  assert.equal(plain(formatDuration(0)), '0 s');
  assert.deepEqual([212.4, 5012, 65_000].map(formatMilliseconds).map(plain), ['212 ms', '5 s', '1 min 5 s']);
  assert.deepEqual([500, 59_700, 95_000, 3_650_000, 4_900_000, 14_400_000].map(formatRoughly).map(plain), [
    '1 s',
    '1 min',
    '1.5 min',
    '1 h',
    '1.5 h',
    '4 h',
  ]);
  const relative = [-5 * 60_000, -59_600, 2 * 3_600_000, -300, -3 * 86_400_000, -70 * 86_400_000].map((time) =>
    plain(formatRelative(time, 0)),
  );
  assert.deepEqual(relative, ['5 min ago', '1 min ago', 'in 2 h', 'now', '3 days ago', '2 months ago']);
});

test('in Chinese, numbers and times are written as in Chinese', () => {
  chooseLanguage('zh');
  assert.equal(plain(formatRelative(0, 5 * 60_000)), '5 分钟前');
  assert.equal(plain(formatDuration(65_000)), '1 分钟 5 秒');
});

test('invisible characters and bidirectional formatting are escaped', () => {
  assert.equal(visible('a\u202eb\u0000c\n<b>\ufeff'), 'a\\u202eb\\u0000c\\u000a<b>\\ufeff');
});
