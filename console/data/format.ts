import { locale } from '../language/language.ts';

/** A dash for unknown values. */
export const UNKNOWN = '–';

const BINARY_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const;
/** Between a number and its unit. */
const NARROW_SPACE = '\u202f';

/** Intl formatters are expensive to create and cheap to keep. */
const numberFormats = new Map<string, Intl.NumberFormat>();

function formatWith(options: Intl.NumberFormatOptions): Intl.NumberFormat {
  const key = locale() + JSON.stringify(options);
  const known = numberFormats.get(key) ?? new Intl.NumberFormat(locale(), options);
  numberFormats.set(key, known);
  return known;
}

export function formatNumber(value: number): string {
  return formatWith({ maximumFractionDigits: 0 }).format(value);
}

/** `share`: from 0 to 1. Never shows 100 % for less than 1. */
export function formatShare(share: number): string {
  const shown = share > 0.999 && share < 1 ? 0.999 : share;
  return formatWith({ style: 'percent', maximumFractionDigits: shown > 0.99 && shown < 1 ? 1 : 0 }).format(shown);
}

/** In the units of the configuration: 1 GiB is 1024 MiB. */
export function formatBytes(bytes: number): string {
  const power = bytes < 1 ? 0 : Math.min(Math.floor(Math.log(bytes) / Math.log(1024)), BINARY_UNITS.length - 1);
  // A value that would be rounded to 1024 is shown as 1 of the next unit.
  const next = Math.round(bytes / 1024 ** power) >= 1024 && power < BINARY_UNITS.length - 1 ? power + 1 : power;
  const value = bytes / 1024 ** next;
  const digits = next === 0 || value >= 100 ? 0 : 1;
  const number = formatWith({ minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
  return `${number}${NARROW_SPACE}${BINARY_UNITS[next] ?? ''}`;
}

export function formatRate(bytesPerSecond: number): string {
  return `${formatBytes(bytesPerSecond)}/s`;
}

export function formatMilliseconds(ms: number): string {
  if (ms >= 10_000) return formatDuration(ms);
  if (ms >= 1000) return formatWith({ style: 'unit', unit: 'second', maximumFractionDigits: 1 }).format(ms / 1000);
  return formatWith({ style: 'unit', unit: 'millisecond', maximumFractionDigits: ms < 10 ? 1 : 0 }).format(ms);
}

const UNITS = [
  ['day', 86_400_000],
  ['hour', 3_600_000],
  ['minute', 60_000],
  ['second', 1000],
] as const;

/** For distant times. */
const LONG_UNITS = [
  ['year', 365 * 86_400_000],
  ['month', 30 * 86_400_000],
] as const;

/** Two units at most: 3 days 4 hr, 12 min 5 sec. */
export function formatDuration(ms: number): string {
  const index = UNITS.findIndex(([, size]) => ms >= size);
  const parts: string[] = [];
  let rest = Math.max(0, ms);
  for (const [unit, size] of UNITS.slice(index === -1 ? 3 : index).slice(0, 2)) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count > 0 || parts.length === 0) parts.push(formatWith({ style: 'unit', unit, unitDisplay: 'short' }).format(count));
  }
  return parts.join(' ');
}

/** How long before or after `now`: 5 minutes ago, in 2 hours. */
export function formatRelative(time: number, now: number): string {
  const difference = time - now;
  const [unit, size] = [...LONG_UNITS, ...UNITS].find(([, size]) => Math.abs(difference) >= size) ?? (['second', 1000] as const);
  return new Intl.RelativeTimeFormat(locale(), { numeric: 'auto', style: 'short' }).format(Math.round(difference / size), unit);
}

/** In the viewer's zone, with the zone's name. */
export function formatAbsolute(time: number): string {
  return new Intl.DateTimeFormat(locale(), { dateStyle: 'medium', timeStyle: 'long' }).format(time);
}

/** As `formatAbsolute`, but short enough for a table: without the date if it is that of `now`. */
export function formatMoment(time: number, now: number): string {
  const isToday = new Date(time).toDateString() === new Date(now).toDateString();
  return new Intl.DateTimeFormat(locale(), isToday ? { timeStyle: 'medium' } : { dateStyle: 'medium', timeStyle: 'short' }).format(time);
}

/** Control characters and bidirectional formatting: labels and names of images may contain
 *  invisible characters. */
// oxlint-disable-next-line no-control-regex
const INVISIBLE = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** Text from outside, with invisible characters escaped: \u202e. */
export function visible(text: string): string {
  return text.replace(INVISIBLE, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
