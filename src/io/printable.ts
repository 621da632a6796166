/** C0 and C1 control characters, DEL, line separators and bidirectional formatting: what a terminal
 *  acts on instead of showing it. */
// oxlint-disable-next-line no-control-regex
const CONTROLS = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;
// oxlint-disable-next-line no-control-regex
const CONTROLS_IN_LINES = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** Text from outside for a terminal, on one line: control characters are written as JSON escapes
 *  them, `\n` and `\u001b`. */
export function printable(text: string): string {
  return text.replace(CONTROLS, escape);
}

/** The same for text of several lines, such as indented JSON: line feeds and tabs stay. JSON means
 *  the same afterwards. */
export function printableLines(text: string): string {
  return text.replace(CONTROLS_IN_LINES, escape);
}

const SHORT: Record<string, string> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' };

function escape(character: string): string {
  return SHORT[character] ?? `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
}
