/** A YAML document, or a part of one, of unknown shape. */
export type Fields = Record<string, unknown>;

export function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export function fieldsOf(value: unknown): Fields {
  return isFields(value) ? value : {};
}

export function itemsOf(value: unknown): Fields[] {
  return Array.isArray(value) ? value.filter((item) => isFields(item)) : [];
}

export function textsOf(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((item) => typeof item === 'string') : [];
}

export function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

export function nameOf(item: Fields): string {
  return textOf(item['name']);
}

/** Something in a subscription, an override or a config file that cannot be used. Its message says what and where, and holds
 *  no secret. */
export class ClashError extends Error {
  override readonly name = 'ClashError';
}
