import { effect, signal } from '@preact/signals';
import { en, type Message, type MessageKey } from './en.ts';
import { readSetting, writeSetting } from '../data/settings.ts';
import { zh } from './zh.ts';

export type { MessageKey };
export type Language = 'en' | 'zh';
export type Values = Record<string, string | number>;

export const MESSAGES: Record<Language, Record<MessageKey, Message>> = { en, zh };
/** The name of each language in the language itself. */
export const LANGUAGES: Record<Language, string> = { en: 'English', zh: '简体中文' };

/** The language of the page: the selected one, or else the first of the browser's languages that is
 *  supported. */
export const language = signal<Language>(
  chosenLanguage(readSetting('language')) ?? navigator.languages.map(chosenLanguage).find((found) => found !== undefined) ?? 'en',
);

/** Keeps the document's `lang` attribute up to date. */
export function followLanguage(): void {
  effect(() => {
    document.documentElement.lang = language.value === 'zh' ? 'zh-CN' : 'en';
  });
}

export function chooseLanguage(chosen: Language): void {
  writeSetting('language', chosen);
  language.value = chosen;
}

/** The locale of numbers and dates. Uses the browser's region (en-GB formats dates differently from
 *  en-US). */
export function locale(): string {
  const own = navigator.languages.find((tag) => chosenLanguage(tag) === language.value);
  return own ?? (language.value === 'zh' ? 'zh-CN' : 'en');
}

/** The text of `key`, with `{name}` replaced by the value of that name. `{count}` selects the
 *  singular or plural form, and is formatted for the language. */
export function t(key: MessageKey, values: Values = {}): string {
  const message = MESSAGES[language.value][key];
  return fill(typeof message === 'string' ? message : message[pluralForm(values['count'])], values);
}

/** For keys from the server. Undefined: there is no such text. */
export function textOf(key: string, values: Values = {}): string | undefined {
  return key in en ? t(key as MessageKey, values) : undefined;
}

function fill(text: string, values: Values): string {
  return text.replaceAll(/\{(\w+)\}/g, (whole, name: string) => {
    const value = values[name];
    return typeof value === 'number' ? value.toLocaleString(locale()) : (value ?? whole);
  });
}

function pluralForm(count: string | number | undefined): 'one' | 'other' {
  return new Intl.PluralRules(language.value).select(Number(count)) === 'one' ? 'one' : 'other';
}

function chosenLanguage(tag: string | undefined): Language | undefined {
  const own = tag?.toLowerCase().split('-', 1)[0];
  return own === 'en' || own === 'zh' ? own : undefined;
}
