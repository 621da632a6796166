import { setImmediate as turn } from 'node:timers/promises';
import { isTag, type Tag } from '../oci/reference.ts';

/** The tags of a list in pieces, each a text of tags with commas between them: a million strings
 *  would take four times the memory. */
export type TagPieces = readonly string[];

/** Parsed in a millisecond or two, before other requests get a turn. */
const PIECE_BYTES = 2 ** 16;

const [QUOTE, BACKSLASH, COMMA, COLON, OPENS_LIST] = ['"', '\\', ',', ':', '['].map((one) => one.charCodeAt(0));
const OPENING = new Set(['[', '{'].map((one) => one.charCodeAt(0)));
const SPACE = new Set([' ', '\t', '\n', '\r'].map((one) => one.charCodeAt(0)));
const CLOSING = new Set([']', '}'].map((one) => one.charCodeAt(0)));

/** Reads the answer to GET tags/list: JSON of up to 32 MiB. What is no tag is left out.
 *  @throws SyntaxError: it is not JSON */
export async function parseTagList(bytes: Buffer, pieceBytes = PIECE_BYTES): Promise<TagPieces> {
  let start = bytes.length <= pieceBytes ? undefined : findTags(bytes);
  if (start === undefined) return nonEmpty(joinTags((JSON.parse(bytes.toString()) as { tags?: unknown } | null)?.tags));
  const pieces: string[] = [];
  while (start !== undefined) {
    const end = endOfElements(bytes, start, start + pieceBytes);
    const elements = JSON.parse(`[${bytes.toString('utf8', start, end)}]`) as unknown[];
    if (end === bytes.length || (elements.length === 0 && bytes[start - 1] === COMMA)) throw new SyntaxError('the list of tags breaks off');
    pieces.push(...nonEmpty(joinTags(elements)));
    start = bytes[end] === COMMA ? end + 1 : undefined;
    await turn();
  }
  return pieces;
}

export function tagsOf(piece: string): Tag[] {
  return piece.split(',') as Tag[];
}

function joinTags(elements: unknown): string {
  return Array.isArray(elements) ? elements.filter((tag) => typeof tag === 'string' && isTag(tag)).join(',') : '';
}

function nonEmpty(piece: string): string[] {
  return piece === '' ? [] : [piece];
}

/** Where the elements of the list `tags` begin. Undefined: the document is no object with one. */
function findTags(bytes: Buffer): number | undefined {
  for (let at = 0; ; at++) {
    const key = bytes.indexOf('"', at);
    if (key === -1) return undefined;
    const end = endOfString(bytes, key) + 1;
    if (JSON.parse(bytes.toString('utf8', key, end)) === 'tags') {
      const value = startOfValue(bytes, end);
      return bytes[value] === OPENS_LIST ? value + 1 : undefined;
    }
    at = endOfElements(bytes, end, end);
    if (bytes[at] !== COMMA) return undefined;
  }
}

/** The start of the value whose key ends at `at`. */
function startOfValue(bytes: Buffer, at: number): number {
  let start = at;
  while (bytes[start] === COLON || SPACE.has(bytes[start] ?? 0)) start++;
  return start;
}

/** The first comma from `least` on between elements of the list or object that `from` is in, or its
 *  end. */
function endOfElements(bytes: Buffer, from: number, least: number): number {
  let depth = 0;
  for (let at = from; at < bytes.length; at++) {
    const byte = bytes[at] ?? 0;
    if (byte === QUOTE) at = endOfString(bytes, at);
    else if (byte === COMMA && depth === 0 && at >= least) return at;
    else if (OPENING.has(byte)) depth++;
    else if (CLOSING.has(byte) && depth-- === 0) return at;
  }
  return bytes.length;
}

/** The closing quote of the string that begins at `start`. */
function endOfString(bytes: Buffer, start: number): number {
  let at = start + 1;
  while (at < bytes.length && bytes[at] !== QUOTE) at += bytes[at] === BACKSLASH ? 2 : 1;
  return at;
}
