/** The value of a scalar without quotes or tag. Integers that a double cannot hold exactly stay
 *  text: some passwords are such numbers. */
export type ScalarValue = string | number | boolean | null;

const WORDS = new Map<string, ScalarValue>([
  ...['true', 'True', 'TRUE'].map((word) => [word, true] as const),
  ...['false', 'False', 'FALSE'].map((word) => [word, false] as const),
  ...['', '~', 'null', 'Null', 'NULL'].map((word) => [word, null] as const),
]);
const STARTS_NUMBER = /^[-+.\d]/;
/** Integers of Go's strconv.ParseInt with base 0: 0x, 0o, 0b, and a leading 0 means octal.
 *  Underscores have been removed already. */
const INTEGER = /^([-+]?)(?:0[xX]([\dA-Fa-f]+)|0[oO]?([0-7]+)|0[bB]([01]+)|(0|[1-9]\d*))$/;
const FLOAT = /^[-+]?(?:\.\d+|\d+(?:\.\d*)?)(?:[eE][-+]?\d+)?$/;
const MAX_UINT64 = 2n ** 64n - 1n;
const MIN_INT64 = -(2n ** 63n);

/** Reads a plain scalar as Go's yaml v3 does (resolve.go). Text that Go takes for a date stays
 *  text. */
export function resolvePlain(text: string): ScalarValue {
  const word = WORDS.get(text);
  if (word !== undefined) return word;
  if (!STARTS_NUMBER.test(text)) return text;
  const digits = text.replaceAll('_', '');
  return parseInteger(digits) ?? (FLOAT.test(text.startsWith('.') ? text : digits) ? finite(Number(digits), text) : text);
}

function parseInteger(digits: string): number | string | undefined {
  const [, sign, hexadecimal, octal, binary, decimal] = INTEGER.exec(digits) ?? [];
  if (sign === undefined) return undefined;
  const written =
    hexadecimal === undefined
      ? octal === undefined
        ? binary === undefined
          ? decimal
          : `0b${binary}`
        : `0o${octal}`
      : `0x${hexadecimal}`;
  const value = BigInt(written ?? 0) * (sign === '-' ? -1n : 1n);
  if (value > MAX_UINT64 || value < MIN_INT64) return undefined;
  return Number.isSafeInteger(Number(value)) ? Number(value) : String(value);
}

function finite(value: number, text: string): number | string {
  return Number.isFinite(value) ? value : text;
}

/** Reads a scalar that has a tag. Tags without a meaning to mihomo do not change the text. */
export function resolveTagged(tag: string, text: string): ScalarValue {
  const name = /^(?:!!|!<tag:yaml\.org,2002:)(\w+)>?$/.exec(tag)?.[1];
  if (name === 'binary') return Buffer.from(text, 'base64').toString('utf8');
  return name === 'int' || name === 'float' || name === 'bool' || name === 'null' ? resolvePlain(text) : text;
}
