import type { Fields } from '../../io/untrusted.ts';

/** The `name` of a node, group or provider; a number is its text. '' when it has none. */
export function nameOf(item: Fields): string {
  return namesOf([item['name']])[0] ?? '';
}

/** A list of names. Numbers are their text, which is how mihomo reads `proxies: [7]`; other
 *  values are dropped. */
export function namesOf(value: unknown): string[] {
  if (!Array.isArray(value)) return [];
  return value.flatMap((item) => (typeof item === 'string' ? [item] : typeof item === 'number' ? [numberText(item)] : []));
}

/** A number as mihomo writes it where it expects text (its common/structure: FormatInt, and
 *  FormatFloat with 'E'). */
function numberText(value: number): string {
  if (Number.isSafeInteger(value)) return String(value);
  const [mantissa = '', exponent = '0'] = value.toExponential().split('e');
  const size = Math.abs(Number(exponent));
  return `${mantissa}E${Number(exponent) < 0 ? '-' : '+'}${String(size).padStart(2, '0')}`;
}

/** `fields` without some of its keys. */
export function omit(fields: Fields, keys: readonly string[]): Fields {
  return Object.fromEntries(Object.entries(fields).filter(([key]) => !keys.includes(key)));
}

/** Something in a subscription, an override or a config file that cannot be used. Its message says
 *  what and where, and contains no secret. */
export class ClashError extends Error {
  override readonly name = 'ClashError';
}
