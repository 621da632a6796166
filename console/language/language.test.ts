import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Message, MessageKey } from './en.ts';
import { REPORT_REASONS } from '../../src/webhook/report.ts';
import { chooseLanguage, MESSAGES, t, textOf } from './language.ts';

function formsOf(message: Message): string[] {
  return typeof message === 'string' ? [message] : Object.values(message);
}

/** The placeholders that every form may use, and `count`, which chooses the form. */
function placeholders(message: Message): string[] {
  return [...new Set(formsOf(message).flatMap((form) => [...form.matchAll(/\{(\w+)\}/g)].map(([, name = '']) => name)))].sort();
}

test('every text has the same placeholders in both languages', () => {
  for (const key of Object.keys(MESSAGES.en) as MessageKey[])
    assert.deepEqual(placeholders(MESSAGES.zh[key]), placeholders(MESSAGES.en[key]), key);
});

test('a count chooses the form, and is written as the language writes numbers', () => {
  chooseLanguage('en');
  assert.equal(t('images.count', { count: 1 }), 'One image');
  assert.equal(t('images.count', { count: 1234 }), '1,234 images');
  chooseLanguage('zh');
  assert.equal(t('images.count', { count: 1234 }), '1,234 个镜像');
});

test('a value is text, whatever it holds', () => {
  chooseLanguage('en');
  assert.equal(t('proxy.nowChosen', { node: '{count} $& <b>' }), 'Node {count} $& <b> is used from now on.');
});

test('every reason why an image keeps its name has a text in both languages, and says what to do', () => {
  for (const language of ['en', 'zh'] as const) {
    chooseLanguage(language);
    assert.deepEqual(
      REPORT_REASONS.filter((reason) => textOf(`reason.${reason}`) === undefined),
      [],
    );
    assert.deepEqual(
      REPORT_REASONS.filter((reason) => textOf(`todo.${reason}`) === undefined),
      ['rewritten'],
    );
  }
});
