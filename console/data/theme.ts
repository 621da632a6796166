import { effect, signal } from '@preact/signals';
import { readSetting, writeSetting } from './settings.ts';

export const THEMES = ['system', 'light', 'dark'] as const;
export type Theme = (typeof THEMES)[number];

const stored = readSetting('theme');
export const theme = signal<Theme>(THEMES.find((name) => name === stored) ?? 'system');

effect(() => {
  if (theme.value === 'system') delete document.documentElement.dataset['theme'];
  else document.documentElement.dataset['theme'] = theme.value;
});

const systemIsDark = matchMedia('(prefers-color-scheme: dark)');
const dark = signal(systemIsDark.matches);
systemIsDark.addEventListener('change', ({ matches }) => (dark.value = matches));

/** Whether the page is currently dark: plots choose their colours themselves. */
export function isDark(): boolean {
  return theme.value === 'system' ? dark.value : theme.value === 'dark';
}

export function chooseTheme(chosen: Theme): void {
  writeSetting('theme', chosen === 'system' ? undefined : chosen);
  theme.value = chosen;
}
