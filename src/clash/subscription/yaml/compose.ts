import { YamlError } from './cursor.ts';
import { resolvePlain, resolveTagged } from './resolve.ts';
import { createScanner, type Scanner } from './scan.ts';
import type { Token, TokenType } from './scan-state.ts';

/** The syntax tree of a document: aliases are not resolved, and keys may repeat. */
type Node =
  | { kind: 'scalar'; value: string; plain: boolean; tag: string; line: number }
  | { kind: 'sequence'; items: Node[]; line: number }
  | { kind: 'mapping'; pairs: [Node, Node][]; line: number }
  | { kind: 'alias'; target: Node; line: number };

interface Composer {
  scanner: Scanner;
  anchors: Map<string, Node>;
}

/** Reads the first document of `text`; the others are never looked at, as Go's yaml does.
 *  @returns undefined when there is none
 *  @throws YamlError */
function composeFirst(text: string): Node | undefined {
  const scanner = createScanner(text);
  const composer: Composer = { scanner, anchors: new Map() };
  while (scanner.peek().type === 'document-end') scanner.next();
  const directives = scanner.peek().type === 'directive';
  while (scanner.peek().type === 'directive') scanner.next();
  const { type, line } = scanner.peek();
  if (type === 'end') return undefined;
  if (type === 'document-start') scanner.next();
  else if (directives) throw new YamlError("'---' is missing", line);
  if (isOneOf(scanner.peek(), ['directive', 'document-start', 'document-end', 'end'])) return emptyScalar(line);
  const root = composeNode(composer, { block: true, indentless: false });
  scanner.peek(); // an invalid next token makes the document invalid YAML, as in Go
  return root;
}

function isOneOf({ type }: Token, types: readonly TokenType[]): boolean {
  return types.includes(type);
}

function emptyScalar(line: number): Node {
  return { kind: 'scalar', value: '', plain: true, tag: '', line };
}

interface Place {
  /** Blocks may start here. */
  block: boolean;
  /** The node is the value of a key: a sequence may start at the key's own column. */
  indentless: boolean;
}

function composeNode(composer: Composer, place: Place): Node {
  const { scanner, anchors } = composer;
  const first = scanner.peek();
  if (first.type === 'alias') {
    scanner.next();
    const target = anchors.get(first.value);
    if (target === undefined) throw new YamlError('an alias names no anchor', first.line);
    return { kind: 'alias', target, line: first.line };
  }
  let anchor: string | undefined;
  let tag: string | undefined;
  for (
    let next = first;
    (next.type === 'anchor' && anchor === undefined) || (next.type === 'tag' && tag === undefined);
    next = scanner.peek()
  ) {
    if (next.type === 'anchor') anchor = next.value;
    else tag = next.value;
    scanner.next();
  }
  const node = composeContent(composer, place, { tag: tag ?? '', mayBeEmpty: anchor !== undefined || tag !== undefined, anchor });
  if (anchor !== undefined) anchors.set(anchor, node);
  return node;
}

interface Properties {
  tag: string;
  anchor: string | undefined;
  mayBeEmpty: boolean;
}

function composeContent(composer: Composer, { block, indentless }: Place, { tag, anchor, mayBeEmpty }: Properties): Node {
  const { scanner, anchors } = composer;
  const { type, line, value, plain } = scanner.peek();
  if (type === 'scalar') {
    scanner.next();
    return { kind: 'scalar', value, plain, tag, line };
  }
  if (type === '[' || (block && type === 'block-sequence') || (indentless && type === '-')) {
    const node: Node = { kind: 'sequence', items: [], line };
    if (anchor !== undefined) anchors.set(anchor, node);
    if (type === '[') composeFlowSequence(composer, node.items);
    else composeBlockSequence(composer, node.items, { indentless: type === '-' });
    return node;
  }
  if (type === '{' || (block && type === 'block-mapping')) {
    const node: Node = { kind: 'mapping', pairs: [], line };
    if (anchor !== undefined) anchors.set(anchor, node);
    if (type === '{') composeFlowMapping(composer, node.pairs);
    else composeBlockMapping(composer, node.pairs);
    return node;
  }
  if (mayBeEmpty) return { kind: 'scalar', value: '', plain: true, tag, line };
  throw new YamlError('a value is missing', line);
}

function composeBlockSequence(composer: Composer, items: Node[], { indentless }: { indentless: boolean }): void {
  const { scanner } = composer;
  const ends: TokenType[] = indentless ? ['-', '?', ':', 'block-end'] : ['-', 'block-end'];
  if (!indentless) scanner.next();
  while (scanner.peek().type === '-') {
    const { line } = scanner.next();
    items.push(isOneOf(scanner.peek(), ends) ? emptyScalar(line) : composeNode(composer, { block: true, indentless: false }));
  }
  if (!indentless) close(scanner, "a list goes on without '-'");
}

function composeBlockMapping(composer: Composer, pairs: [Node, Node][]): void {
  const { scanner } = composer;
  scanner.next();
  const part = (type: '?' | ':'): Node => {
    const { line } = scanner.peek();
    if (scanner.peek().type !== type) return emptyScalar(line);
    scanner.next();
    return isOneOf(scanner.peek(), ['?', ':', 'block-end']) ? emptyScalar(line) : composeNode(composer, { block: true, indentless: true });
  };
  while (scanner.peek().type === '?') pairs.push([part('?'), part(':')]);
  close(scanner, 'a key is missing');
}

function close(scanner: Scanner, problem: string): void {
  const { type, line } = scanner.peek();
  if (type !== 'block-end') throw new YamlError(problem, line);
  scanner.next();
}

/** Skips the comma between two entries. @returns false at the end, which it skips too */
function nextEntry(scanner: Scanner, end: ']' | '}', first: boolean): boolean {
  if (!first && scanner.peek().type !== end) {
    const { type, line } = scanner.peek();
    if (type !== ',') throw new YamlError(`',' or '${end}' is missing`, line);
    scanner.next();
  }
  if (scanner.peek().type !== end) return true;
  scanner.next();
  return false;
}

function composeFlowSequence(composer: Composer, items: Node[]): void {
  const { scanner } = composer;
  scanner.next();
  for (let first = true; nextEntry(scanner, ']', first); first = false) {
    const { type, line } = scanner.peek();
    if (type === '?') {
      scanner.next();
      items.push({ kind: 'mapping', pairs: [[flowPart(composer, ']'), flowValue(composer, ']')]], line });
    } else {
      items.push(composeNode(composer, { block: false, indentless: false }));
    }
  }
}

function composeFlowMapping(composer: Composer, pairs: [Node, Node][]): void {
  const { scanner } = composer;
  scanner.next();
  for (let first = true; nextEntry(scanner, '}', first); first = false) {
    if (scanner.peek().type === '?') {
      scanner.next();
      pairs.push([flowPart(composer, '}'), flowValue(composer, '}')]);
    } else {
      const key = composeNode(composer, { block: false, indentless: false });
      pairs.push([key, emptyScalar(key.line)]);
    }
  }
}

function flowPart(composer: Composer, end: ']' | '}'): Node {
  const next = composer.scanner.peek();
  if (isOneOf(next, [':', ',', end])) return emptyScalar(next.line);
  return composeNode(composer, { block: false, indentless: false });
}

function flowValue(composer: Composer, end: ']' | '}'): Node {
  const { scanner } = composer;
  const { type, line } = scanner.peek();
  if (type !== ':') return emptyScalar(line);
  scanner.next();
  return isOneOf(scanner.peek(), [',', end]) ? emptyScalar(line) : composeNode(composer, { block: false, indentless: false });
}

export interface Document {
  /** Made of null, booleans, numbers, texts, arrays and plain objects. */
  value: unknown;
  /** Lines, counted from 1, of keys that occur twice in one map; the last one counts. */
  repeated: number[];
}

/** Up to this many values come from aliases at 99 in 100; of larger documents less (Go's yaml v3,
 *  decode.go). */
const SMALL = 400_000;
const LARGE = 4_000_000;

interface Conversion {
  count: number;
  aliased: number;
  open: Set<Node>;
  repeated: number[];
}

/** Reads the first document of `text`. @throws YamlError: not YAML, or a few aliases stand for a
 *  huge document */
export function parseDocument(text: string): Document {
  const node = composeFirst(text);
  const conversion: Conversion = { count: 0, aliased: 0, open: new Set(), repeated: [] };
  return { value: node === undefined ? null : convert(node, false, conversion), repeated: conversion.repeated };
}

function convert(node: Node, aliased: boolean, conversion: Conversion): unknown {
  conversion.count++;
  if (aliased) conversion.aliased++;
  const { count, aliased: fromAliases } = conversion;
  const share = 0.99 - 0.89 * Math.min(1, Math.max(0, (count - SMALL) / (LARGE - SMALL)));
  if (fromAliases > 100 && count > 1000 && fromAliases / count > share) throw new YamlError('its aliases expand too far', node.line);
  if (node.kind === 'scalar')
    return node.tag === '' || node.tag === '!' ? (node.plain ? resolvePlain(node.value) : node.value) : resolveTagged(node.tag, node.value);
  if (node.kind === 'sequence') return node.items.map((item) => convert(item, aliased, conversion));
  if (node.kind === 'mapping') return convertMapping(node.pairs, aliased, conversion);
  if (conversion.open.has(node.target)) throw new YamlError('an anchor contains itself', node.line);
  conversion.open.add(node.target);
  const value = convert(node.target, true, conversion);
  conversion.open.delete(node.target);
  return value;
}

function convertMapping(pairs: readonly [Node, Node][], aliased: boolean, conversion: Conversion): Record<string, unknown> {
  const own = new Map<string, unknown>();
  const merged: unknown[] = [];
  for (const [key, value] of pairs) {
    if (key.kind === 'scalar' && key.value === '<<' && key.plain) {
      merged.push(convert(value, aliased, conversion));
      continue;
    }
    const name = convert(key, aliased, conversion);
    const text = typeof name === 'string' ? name : JSON.stringify(name);
    if (own.has(text)) conversion.repeated.push(key.line + 1);
    own.set(text, convert(value, aliased, conversion));
  }
  // Of several merged maps the first takes precedence, and the map's own keys over all of them.
  const sources = merged.flat(1).filter((source) => typeof source === 'object' && source !== null);
  const all = new Map([...sources.toReversed().flatMap((source) => Object.entries(source)), ...own]);
  const result: Record<string, unknown> = {};
  for (const [key, value] of all) {
    Object.defineProperty(result, key, { value, enumerable: true, writable: true, configurable: true }); // __proto__ is a key like any other
  }
  return result;
}
