import { effect, signal } from '@preact/signals';
import { en, type Message, type MessageKey } from './en.ts';
import { readSetting, writeSetting } from '../data/settings.ts';
import { zh } from './zh.ts';

export type { MessageKey };
export type Language = 'en' | 'zh';
export type Values = Record<string, string | number>;

export const MESSAGES: Record<Language, Record<MessageKey, Message>> = { en, zh };
/** Their names in themselves. */
export const LANGUAGES: Record<Language, string> = { en: 'English', zh: '简体中文' };

/** The language of the page: the one that was chosen, or else the first of the browser's that it has. */
export const language = signal<Language>(
  chosenLanguage(readSetting('language')) ?? navigator.languages.map(chosenLanguage).find((found) => found !== undefined) ?? 'en',
);

/** Keeps the language that the document declares the same. */
export function followLanguage(): void {
  effect(() => {
    document.documentElement.lang = language.value === 'zh' ? 'zh-CN' : 'en';
  });
}

export function chooseLanguage(chosen: Language): void {
  writeSetting('language', chosen);
  language.value = chosen;
}

/** The locale of numbers and dates. The browser's own region is kept (en-GB writes dates unlike en-US). */
export function locale(): string {
  const own = navigator.languages.find((tag) => chosenLanguage(tag) === language.value);
  return own ?? (language.value === 'zh' ? 'zh-CN' : 'en');
}

/** The text of `key`, with `{name}` replaced by the value of that name. `{count}` chooses the form,
 *  and is written as the language writes numbers. */
export function t(key: MessageKey, values: Values = {}): string {
  const message = MESSAGES[language.value][key];
  return fill(typeof message === 'string' ? message : message[pluralForm(values['count'])], values);
}

/** For keys that the server makes. Undefined: there is no such text. */
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
