/** A position in a text. Lines and columns count from 0. */
export interface Mark {
  index: number;
  line: number;
  column: number;
}

/** The text of a document and the current reading position. */
export interface Cursor {
  readonly text: string;
  readonly mark: Mark;
  /** The character `ahead` of the current one; '' at the end of the text. */
  peek(ahead?: number): string;
  /** Skips `count` characters that are not line breaks. */
  skip(count?: number): void;
  /** Skips a line break. @returns it in its normal form: '\n', or U+2028, U+2029 */
  skipBreak(): string;
  /** Skips the rest of the line, without its break. */
  skipLine(): void;
}

/** The error for unreadable YAML. The message quotes nothing of the document. */
export class YamlError extends Error {
  override readonly name = 'YamlError';
  readonly line: number;

  /** @param line counted from 0 */
  constructor(message: string, line: number) {
    super(message);
    this.line = line;
  }
}

const BREAKS = new Set(['\n', '\r', '\u0085', '\u2028', '\u2029']);
const BYTE_ORDER_MARK = '\uFEFF';

export function isBreak(character: string): boolean {
  return BREAKS.has(character);
}

export function isBlank(character: string): boolean {
  return character === ' ' || character === '\t';
}

/** A space, a tab, a line break or the end of the text. */
export function isBlankOrEnd(character: string): boolean {
  return character === '' || isBlank(character) || isBreak(character);
}

/** A letter, a digit, _ or -: the characters of anchor and tag names. */
export function isWord(character: string): boolean {
  return /^[A-Za-z0-9_-]$/.test(character);
}

export function createCursor(text: string): Cursor {
  const mark: Mark = { index: 0, line: 0, column: 0 };
  if (text.startsWith(BYTE_ORDER_MARK)) mark.index = 1;
  return {
    text,
    mark,
    peek: (ahead = 0) => text.charAt(mark.index + ahead),
    skip(count = 1) {
      mark.index += count;
      mark.column += count;
    },
    skipBreak() {
      const first = text.charAt(mark.index);
      mark.index += first === '\r' && text.charAt(mark.index + 1) === '\n' ? 2 : 1;
      mark.line++;
      mark.column = 0;
      return first === '\u2028' || first === '\u2029' ? first : '\n';
    },
    skipLine() {
      while (mark.index < text.length && !isBreak(text.charAt(mark.index))) mark.index++;
    },
  };
}

/** Whether the cursor is at `---` or `...` at the start of a line. */
export function atDocumentMarker(cursor: Cursor): boolean {
  const { mark, text } = cursor;
  if (mark.column !== 0) return false;
  return (text.startsWith('---', mark.index) || text.startsWith('...', mark.index)) && isBlankOrEnd(cursor.peek(3));
}
