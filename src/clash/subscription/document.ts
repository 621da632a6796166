import { textOf, type Fields } from '../../io/untrusted.ts';

/** The `name` of a proxy, group or provider; empty if it has none. */
export function nameOf(item: Fields): string {
  return textOf(item['name']) ?? '';
}

/** Something in a subscription, an override or a config file that cannot be used. Its message says what and where, and holds
 *  no secret. */
export class ClashError extends Error {
  override readonly name = 'ClashError';
}
