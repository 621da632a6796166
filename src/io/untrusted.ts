/** An object of a parsed JSON or YAML document from outside. Nothing is known about its shape, so
 *  every value is read through the functions below. */
export type Fields = Record<string, unknown>;

/** True for objects; false for arrays and null. */
export function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The object, or an empty one if `value` is anything else. */
export function fieldsOf(value: unknown): Fields {
  return isFields(value) ? value : {};
}

/** The objects of a list, in order. Other elements are dropped, so an index into the result is not
 *  an index into the list. */
export function itemsOf(value: unknown): Fields[] {
  return Array.isArray(value) ? value.filter((item) => isFields(item)) : [];
}

/** The string, or undefined if `value` is anything else. */
export function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

/** The strings of a list, in order. */
export function textsOf(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((item) => typeof item === 'string') : [];
}
