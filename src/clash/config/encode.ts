/** Characters that Go's YAML parser rejects within a text (control characters), or folds as line
 *  breaks. */
const UNSAFE = /[\u007F-\u009F\u2028\u2029\uFEFF\uFFFE\uFFFF]/g;

/** Writes a config as JSON that mihomo reads: its YAML parser takes JSON, except for some
 *  characters, which are escaped here. Surrogates without their other half become U+FFFD, since
 *  YAML has no escape for them. */
export function encodeConfig(config: unknown): string {
  const wellFormed = (_: string, value: unknown) => (typeof value === 'string' ? value.toWellFormed() : value);
  return JSON.stringify(config, wellFormed).replace(UNSAFE, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
