import { atDocumentMarker, createCursor, isBlank, isBlankOrEnd, isBreak, isWord, YamlError } from './cursor.ts';
import { scanBlock, scanPlain, scanQuoted } from './scan-scalar.ts';
import { dropKey, expire, MAX_DEPTH, MAX_KEY, push, roll, saveKey, unroll, type ScanState, type Token } from './scan-state.ts';

export interface Scanner {
  /** The next token, which `next` also returns. @throws YamlError: the text does not continue with
   *  a token */
  peek(): Token;
  next(): Token;
}

const NEVER_PLAIN = new Set('-?:,[]{}#&*!|>\'"%@`');

/** Splits YAML into tokens by the rules of libyaml, which Go's yaml and therefore mihomo follow:
 *  brackets may close at any column, a comment needs no space before it, and a colon makes the text
 *  before it on its line a key. */
export function createScanner(text: string): Scanner {
  const state: ScanState = {
    cursor: createCursor(text),
    tokens: [],
    taken: 0,
    indent: -1,
    indents: [],
    keyAllowed: true,
    keys: [undefined],
    ended: false,
  };
  /** Whether the next token may still turn out to be a key. */
  const isOpen = () => {
    for (const key of state.keys) if (key !== undefined) expire(state, key);
    return state.keys.some((key) => key?.number === state.taken);
  };
  const fill = () => {
    while (!state.ended && (state.tokens.length === 0 || isOpen())) fetchToken(state);
    const [token] = state.tokens;
    if (token === undefined) throw new YamlError('it ends too early', state.cursor.mark.line);
    return token;
  };
  return {
    peek: fill,
    next() {
      const token = fill();
      if (token.type !== 'end') {
        state.tokens.shift();
        state.taken++;
      }
      return token;
    },
  };
}

function skipToToken({ cursor, keys, keyAllowed }: ScanState): { brokeLine: boolean } {
  let brokeLine = false;
  for (;;) {
    if (cursor.mark.column === 0 && cursor.peek() === '\uFEFF') cursor.skip();
    const tabs = () => keys.length > 1 || !(keyAllowed || brokeLine);
    while (cursor.peek() === ' ' || (cursor.peek() === '\t' && tabs())) cursor.skip();
    if (cursor.peek() === '#') cursor.skipLine();
    if (!isBreak(cursor.peek())) return { brokeLine };
    cursor.skipBreak();
    if (keys.length === 1) brokeLine = true;
  }
}

function fetchToken(state: ScanState): void {
  const { cursor } = state;
  if (skipToToken(state).brokeLine) state.keyAllowed = true;
  for (const key of state.keys) if (key !== undefined) expire(state, key);
  unroll(state, cursor.mark.column);
  const next = cursor.peek();
  if (next === '') return fetchEnd(state);
  if (cursor.mark.column === 0) {
    if (next === '%') return fetchDirective(state);
    if (atDocumentMarker(cursor)) return fetchMarker(state, next === '-' ? 'document-start' : 'document-end');
  }
  const flow = state.keys.length > 1;
  const blankFollows = isBlankOrEnd(cursor.peek(1));
  if (next === '[' || next === '{') return fetchOpening(state, next);
  if (next === ']' || next === '}') return fetchClosing(state, next);
  if (next === ',') return fetchIndicator(state, ',');
  if (next === '-' && blankFollows) return fetchEntry(state);
  if (next === '?' && (flow || blankFollows)) return fetchKey(state);
  if (next === ':' && (flow || blankFollows)) return fetchValue(state);
  if (next === '*' || next === '&') return fetchAnchor(state, next === '*' ? 'alias' : 'anchor');
  if (next === '!') return fetchTag(state);
  if ((next === '|' || next === '>') && !flow) return fetchBlockScalar(state);
  if (next === '"' || next === "'") return fetchScalar(state);
  const startsPlain = (next === '-' && !isBlank(cursor.peek(1))) || (!flow && (next === '?' || next === ':'));
  if ((isBlank(next) || NEVER_PLAIN.has(next)) && !startsPlain) throw new YamlError('a character is not allowed here', cursor.mark.line);
  fetchScalar(state);
}

function fetchEnd(state: ScanState): void {
  unroll(state, -1);
  dropKey(state, state.keys.length - 1);
  state.keyAllowed = false;
  state.ended = true;
  push(state, 'end');
}

/** %YAML and %TAG: no subscription needs them, and neither changes a node. */
function fetchDirective(state: ScanState): void {
  unroll(state, -1);
  dropKey(state, state.keys.length - 1);
  state.keyAllowed = false;
  push(state, 'directive');
  state.cursor.skipLine();
}

function fetchMarker(state: ScanState, type: 'document-start' | 'document-end'): void {
  unroll(state, -1);
  dropKey(state, state.keys.length - 1);
  state.keyAllowed = false;
  push(state, type);
  state.cursor.skip(3);
}

function fetchOpening(state: ScanState, type: '[' | '{'): void {
  saveKey(state);
  state.keys.push(undefined);
  if (state.keys.length > MAX_DEPTH) throw new YamlError('it is nested too deep', state.cursor.mark.line);
  state.keyAllowed = true;
  push(state, type);
  state.cursor.skip();
}

function fetchClosing(state: ScanState, type: ']' | '}'): void {
  dropKey(state, state.keys.length - 1);
  if (state.keys.length > 1) state.keys.pop();
  state.keyAllowed = false;
  push(state, type);
  state.cursor.skip();
}

function fetchIndicator(state: ScanState, type: ',' | '-'): void {
  dropKey(state, state.keys.length - 1);
  state.keyAllowed = true;
  push(state, type);
  state.cursor.skip();
}

function fetchEntry(state: ScanState): void {
  if (state.keys.length === 1) {
    if (!state.keyAllowed) throw new YamlError("'-' cannot stand here", state.cursor.mark.line);
    roll(state, 'block-sequence', state.cursor.mark);
  }
  fetchIndicator(state, '-');
}

function fetchKey(state: ScanState): void {
  const block = state.keys.length === 1;
  if (block) {
    if (!state.keyAllowed) throw new YamlError("'?' cannot stand here", state.cursor.mark.line);
    roll(state, 'block-mapping', state.cursor.mark);
  }
  dropKey(state, state.keys.length - 1);
  state.keyAllowed = block;
  push(state, '?');
  state.cursor.skip();
}

function fetchValue(state: ScanState): void {
  const level = state.keys.length - 1;
  const key = state.keys[level];
  if (key !== undefined) {
    const at = key.number - state.taken;
    push(state, '?', { at, line: key.mark.line });
    roll(state, 'block-mapping', { column: key.mark.column, at });
    state.keys[level] = undefined;
    state.keyAllowed = false;
  } else {
    if (level === 0) {
      if (!state.keyAllowed) throw new YamlError("':' cannot stand here", state.cursor.mark.line);
      roll(state, 'block-mapping', state.cursor.mark);
    }
    state.keyAllowed = level === 0;
  }
  push(state, ':');
  state.cursor.skip();
}

function fetchAnchor(state: ScanState, type: 'alias' | 'anchor'): void {
  saveKey(state);
  state.keyAllowed = false;
  const { cursor } = state;
  const { index, line } = cursor.mark;
  cursor.skip();
  while (isWord(cursor.peek())) cursor.skip();
  const value = cursor.text.slice(index + 1, cursor.mark.index);
  const next = cursor.peek();
  if (value === '' || !(isBlankOrEnd(next) || '?:,]}%@`'.includes(next))) throw new YamlError('an anchor has no proper name', line);
  push(state, type, { value });
}

function fetchTag(state: ScanState): void {
  saveKey(state);
  state.keyAllowed = false;
  const { cursor } = state;
  const { index, line } = cursor.mark;
  const [value = ''] = /^!<[^>\s]*>|^![\w;/?:@&=+$,.!~*'()[\]%-]*/.exec(cursor.text.slice(index, index + MAX_KEY)) ?? [];
  cursor.skip(value.length);
  if (value === '' || !isBlankOrEnd(cursor.peek())) throw new YamlError('a tag has no proper name', line);
  push(state, 'tag', { value });
}

function fetchBlockScalar(state: ScanState): void {
  dropKey(state, state.keys.length - 1);
  state.keyAllowed = true;
  const { line } = state.cursor.mark;
  push(state, 'scalar', { value: scanBlock(state.cursor, state.indent), line });
}

function fetchScalar(state: ScanState): void {
  saveKey(state);
  state.keyAllowed = false;
  const { cursor } = state;
  const { line } = cursor.mark;
  const quoted = cursor.peek() === '"' || cursor.peek() === "'";
  if (quoted) return push(state, 'scalar', { value: scanQuoted(cursor), line });
  const { value, endsLine } = scanPlain(cursor, { indent: state.indent, flow: state.keys.length > 1 });
  if (endsLine) state.keyAllowed = true;
  push(state, 'scalar', { value, plain: true, line });
}
