import { YamlError, type Cursor, type Mark } from './cursor.ts';

export type TokenType =
  | 'end'
  | 'directive'
  | 'document-start'
  | 'document-end'
  | 'block-sequence'
  | 'block-mapping'
  | 'block-end'
  | '['
  | ']'
  | '{'
  | '}'
  | ','
  | '-'
  | '?'
  | ':'
  | 'alias'
  | 'anchor'
  | 'tag'
  | 'scalar';

export interface Token {
  type: TokenType;
  /** Counted from 0. */
  line: number;
  /** The text of a scalar, an alias or an anchor; of a tag, as written. */
  value: string;
  /** Whether a scalar has no quotes, so that its text determines its type. */
  plain: boolean;
}

/** A token that is a key if a colon follows it. */
interface SimpleKey {
  /** The index of the token among all tokens. */
  number: number;
  mark: Mark;
  /** Only a key may be at its position. */
  required: boolean;
}

/** The state of a scanner. */
export interface ScanState {
  cursor: Cursor;
  tokens: Token[];
  /** The number of tokens taken. */
  taken: number;
  /** The column of the innermost block, or -1. */
  indent: number;
  indents: number[];
  keyAllowed: boolean;
  /** The possible key of each flow level, the block level first. */
  keys: (SimpleKey | undefined)[];
  ended: boolean;
}

/** The maximum length of a key, in code units. */
export const MAX_KEY = 1024;
export const MAX_DEPTH = 10_000;

export function push(
  state: ScanState,
  type: TokenType,
  { value = '', plain = false, at = state.tokens.length, line = state.cursor.mark.line } = {},
): void {
  state.tokens.splice(at, 0, { type, line, value, plain });
}

/** Drops a possible key that no colon can follow any more. @throws YamlError: only a key may be at
 *  its position */
export function expire(state: ScanState, key: SimpleKey): void {
  const { mark } = state.cursor;
  if (key.mark.line === mark.line && key.mark.index + MAX_KEY >= mark.index) return;
  dropKey(state, state.keys.indexOf(key));
}

export function dropKey(state: ScanState, level: number): void {
  const key = state.keys[level];
  if (key?.required === true) throw new YamlError("a key has no ':'", key.mark.line);
  state.keys[level] = undefined;
}

export function saveKey(state: ScanState): void {
  if (!state.keyAllowed) return;
  const level = state.keys.length - 1;
  const required = level === 0 && state.indent === state.cursor.mark.column;
  dropKey(state, level);
  state.keys[level] = { number: state.taken + state.tokens.length, mark: { ...state.cursor.mark }, required };
}

/** Opens a block at `column` if it is deeper than the one before. */
export function roll(state: ScanState, type: 'block-sequence' | 'block-mapping', { column, at }: { column: number; at?: number }): void {
  if (state.keys.length > 1 || state.indent >= column) return;
  state.indents.push(state.indent);
  state.indent = column;
  if (state.indents.length > MAX_DEPTH) throw new YamlError('it is nested too deep', state.cursor.mark.line);
  push(state, type, at === undefined ? {} : { at });
}

/** Closes the blocks that are deeper than `column`. */
export function unroll(state: ScanState, column: number): void {
  if (state.keys.length > 1) return;
  while (state.indent > column) {
    push(state, 'block-end');
    state.indent = state.indents.pop() ?? -1;
  }
}
