import { locale, t } from '../language/language.ts';

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
  if (ms >= 1000) return t('time.s', { n: formatWith({ maximumFractionDigits: 1 }).format(ms / 1000) });
  return t('time.ms', { n: formatWith({ maximumFractionDigits: ms < 10 ? 1 : 0 }).format(ms) });
}

const UNITS = [
  ['time.d', 86_400_000],
  ['time.h', 3_600_000],
  ['time.min', 60_000],
  ['time.s', 1000],
] as const;

function unitOf(ms: number): number {
  const index = UNITS.findIndex(([, size]) => ms >= size);
  return index === -1 ? UNITS.length - 1 : index;
}

/** Two units at most: 3 d 4 h, 12 min 5 s. */
export function formatDuration(ms: number): string {
  const parts: string[] = [];
  let rest = Math.max(0, ms);
  for (const [unit, size] of UNITS.slice(unitOf(ms)).slice(0, 2)) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count > 0 || parts.length === 0) parts.push(t(unit, { n: count }));
  }
  return parts.join(' ');
}

/** For estimates: 50 min, 1.5 h. */
export function formatRoughly(ms: number): string {
  return inOneUnit(ms, (count) => (count < 3 ? Math.max(1, Math.round(2 * count) / 2) : Math.round(count)));
}

/** A time that rounds up to 60 s is shown as 1 min. */
function inOneUnit(ms: number, round: (count: number) => number): string {
  const [, size] = UNITS[unitOf(ms)] ?? UNITS[3];
  const rounded = round(ms / size) * size;
  const [unit, own] = UNITS[unitOf(rounded)] ?? UNITS[3];
  return t(unit, { n: rounded / own });
}

/** For distant times. */
const LONG_UNITS = [
  ['year', 365 * 86_400_000],
  ['month', 30 * 86_400_000],
  ['day', 86_400_000],
] as const;

/** A time relative to `now`: 5 min ago, in 2 h, 3 months ago. */
export function formatRelative(time: number, now: number): string {
  const difference = time - now;
  const long = LONG_UNITS.find(([, size]) => Math.abs(difference) >= size);
  if (long !== undefined)
    return new Intl.RelativeTimeFormat(locale(), { numeric: 'auto' }).format(Math.round(difference / long[1]), long[0]);
  if (Math.abs(difference) < 500) return t('time.now');
  return t(difference < 0 ? 'time.ago' : 'time.in', { time: inOneUnit(Math.abs(difference), Math.round) });
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
