import { atDocumentMarker, isBlank, isBlankOrEnd, isBreak, YamlError, type Cursor } from './cursor.ts';

/** The lines of a flow scalar are joined: one break becomes a space; of several, all but the first
 *  stay. */
function fold(breaks: readonly string[]): string {
  const [first = '', ...others] = breaks;
  if (first !== '\n') return breaks.join('');
  return others.length === 0 ? ' ' : others.join('');
}

/** Skips blanks and line breaks. @returns their meaning within a flow scalar */
function scanSpace(cursor: Cursor, breaks: string[]): string {
  let blanks = '';
  for (let next = cursor.peek(); isBlank(next) || isBreak(next); next = cursor.peek()) {
    if (isBreak(next)) {
      breaks.push(cursor.skipBreak());
    } else {
      if (breaks.length === 0) blanks += next;
      cursor.skip();
    }
  }
  return breaks.length === 0 ? blanks : fold(breaks);
}

const ESCAPES: Record<string, string> = {
  '0': '\0',
  a: '\x07',
  b: '\b',
  t: '\t',
  '\t': '\t',
  n: '\n',
  v: '\v',
  f: '\f',
  r: '\r',
  e: '\x1B',
  ' ': ' ',
  '"': '"',
  "'": "'",
  '/': '/',
  '\\': '\\',
  N: '\u0085',
  _: '\u00A0',
  L: '\u2028',
  P: '\u2029',
};
const HEX_DIGITS: Record<string, number> = { x: 2, u: 4, U: 8 };

/** @throws YamlError: not an escape of YAML */
function scanEscape(cursor: Cursor): string {
  const kind = cursor.peek(1);
  const digits = HEX_DIGITS[kind];
  const meaning = ESCAPES[kind];
  if (digits === undefined) {
    if (meaning === undefined || !Object.hasOwn(ESCAPES, kind)) throw new YamlError('unknown escape', cursor.mark.line);
    cursor.skip(2);
    return meaning;
  }
  const hex = cursor.text.slice(cursor.mark.index + 2, cursor.mark.index + 2 + digits);
  const code = /^[0-9A-Fa-f]+$/.test(hex) && hex.length === digits ? Number.parseInt(hex, 16) : Number.NaN;
  if (!(code <= 0x10ffff) || (code >= 0xd800 && code <= 0xdfff)) throw new YamlError('invalid escape', cursor.mark.line);
  cursor.skip(2 + digits);
  return String.fromCodePoint(code);
}

/** Reads a quoted scalar; the cursor is at the opening quote.
 *  @throws YamlError: it does not end, or has an unknown escape */
export function scanQuoted(cursor: Cursor): string {
  const { line } = cursor.mark;
  const quote = cursor.peek();
  cursor.skip();
  let value = '';
  for (;;) {
    if (cursor.peek() === '') throw new YamlError('a quote is not closed', line);
    if (atDocumentMarker(cursor)) throw new YamlError('a quote is not closed before the end of its document', line);
    const breaks: string[] = [];
    let escapedBreak = false;
    for (let next = cursor.peek(); !isBlankOrEnd(next); next = cursor.peek()) {
      if (next === quote && !(quote === "'" && cursor.peek(1) === "'")) break;
      if (quote === '"' && next === '\\' && isBreak(cursor.peek(1))) {
        cursor.skip();
        cursor.skipBreak();
        escapedBreak = true;
        break;
      }
      if (quote === '"' && next === '\\') {
        value += scanEscape(cursor);
      } else {
        value += next;
        cursor.skip(next === quote ? 2 : 1);
      }
    }
    if (!escapedBreak && cursor.peek() === quote) break;
    value += escapedBreak ? scanAfterEscapedBreak(cursor) : scanSpace(cursor, breaks);
  }
  cursor.skip();
  return value;
}

/** A backslash at the end of a line joins it to the next one without a space. */
function scanAfterEscapedBreak(cursor: Cursor): string {
  const breaks: string[] = [];
  for (let next = cursor.peek(); isBlank(next) || isBreak(next); next = cursor.peek()) {
    if (isBreak(next)) breaks.push(cursor.skipBreak());
    else cursor.skip();
  }
  return breaks.join('');
}

const FLOW_INDICATORS = new Set([',', '?', '[', ']', '{', '}']);

export interface PlainScalar {
  value: string;
  /** The scalar ended at the start of a line, where a key may follow. */
  endsLine: boolean;
}

/** Reads a scalar without quotes.
 *  @param place `indent`: the column of the enclosing block, or -1; `flow`: the scalar is within
 *  brackets or braces
 *  @throws YamlError: a tab where spaces indent */
export function scanPlain(cursor: Cursor, { indent, flow }: { indent: number; flow: boolean }): PlainScalar {
  const least = indent + 1;
  let value = '';
  let space = '';
  let breaks: string[] = [];
  while (!atDocumentMarker(cursor) && cursor.peek() !== '#') {
    const start = cursor.mark.index;
    for (let next = cursor.peek(); !isBlankOrEnd(next); next = cursor.peek()) {
      if ((next === ':' && isBlankOrEnd(cursor.peek(1))) || (flow && FLOW_INDICATORS.has(next))) break;
      cursor.skip();
    }
    if (cursor.mark.index > start) {
      value += space + cursor.text.slice(start, cursor.mark.index);
      space = '';
      breaks = [];
    }
    const next = cursor.peek();
    if (!isBlank(next) && !isBreak(next)) break;
    space = scanPlainSpace(cursor, breaks, least);
    if (!flow && cursor.mark.column < least) break;
  }
  return { value, endsLine: breaks.length > 0 };
}

function scanPlainSpace(cursor: Cursor, breaks: string[], least: number): string {
  const { line } = cursor.mark;
  let blanks = '';
  for (let next = cursor.peek(); isBlank(next) || isBreak(next); next = cursor.peek()) {
    if (isBreak(next)) {
      breaks.push(cursor.skipBreak());
      continue;
    }
    if (breaks.length > 0 && cursor.mark.column < least && next === '\t') throw new YamlError('a tab indents', line);
    if (breaks.length === 0) blanks += next;
    cursor.skip();
  }
  return breaks.length === 0 ? blanks : fold(breaks);
}

/** Reads a scalar after `|` or `>`, where the cursor is.
 *  @param parent the column of the enclosing block, or -1
 *  @throws YamlError: its head is malformed, or a tab indents it */
export function scanBlock(cursor: Cursor, parent: number): string {
  const literal = cursor.peek() === '|';
  cursor.skip();
  const { chomping, increment } = scanBlockHead(cursor);
  const state = { indent: increment === 0 ? 0 : Math.max(parent, 0) + increment, parent };
  let trailing = scanBlockBreaks(cursor, state);
  let value = '';
  let leadingBreak = '';
  let leadingBlank = false;
  while (cursor.mark.column === state.indent && cursor.peek() !== '') {
    const blank = isBlank(cursor.peek());
    if (!literal && leadingBreak === '\n' && !leadingBlank && !blank) value += trailing === '' ? ' ' : '';
    else value += leadingBreak;
    value += trailing;
    leadingBlank = blank;
    const start = cursor.mark.index;
    cursor.skipLine();
    value += cursor.text.slice(start, cursor.mark.index);
    leadingBreak = cursor.peek() === '' ? '' : cursor.skipBreak();
    if (cursor.peek() === '' && leadingBreak === '') cursor.mark.column = -1;
    trailing = scanBlockBreaks(cursor, state);
  }
  if (chomping !== '-') value += leadingBreak;
  if (chomping === '+') value += trailing;
  return value;
}

function scanBlockHead(cursor: Cursor): { chomping: string; increment: number } {
  const { line } = cursor.mark;
  let chomping = '';
  let increment = 0;
  for (let part = 0; part < 2; part++) {
    const next = cursor.peek();
    if (chomping === '' && (next === '+' || next === '-')) {
      chomping = next;
      cursor.skip();
    } else if (increment === 0 && /^[1-9]$/.test(next)) {
      increment = Number(next);
      cursor.skip();
    }
  }
  while (isBlank(cursor.peek())) cursor.skip();
  if (cursor.peek() === '#') cursor.skipLine();
  if (cursor.peek() !== '' && !isBreak(cursor.peek())) throw new YamlError('a block scalar has a malformed head', line);
  if (cursor.peek() !== '') cursor.skipBreak();
  return { chomping, increment };
}

/** Skips empty lines and the indentation after them, which it determines if it is not given. */
function scanBlockBreaks(cursor: Cursor, state: { indent: number; parent: number }): string {
  let breaks = '';
  let deepest = 0;
  for (;;) {
    while ((state.indent === 0 || cursor.mark.column < state.indent) && cursor.peek() === ' ') cursor.skip();
    deepest = Math.max(deepest, cursor.mark.column);
    if ((state.indent === 0 || cursor.mark.column < state.indent) && cursor.peek() === '\t') {
      throw new YamlError('a tab indents', cursor.mark.line);
    }
    if (!isBreak(cursor.peek())) break;
    breaks += cursor.skipBreak();
  }
  if (state.indent === 0) state.indent = Math.max(deepest, state.parent + 1, 1);
  return breaks;
}
