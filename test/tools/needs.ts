import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { DEBIAN_PACKAGES, RECIPES, type DebianProgram, type ToolName } from './recipes.ts';

/** The tools that a test file needs from outside the checkout. */
export interface Needs {
  tools: ToolName[];
  debian: DebianProgram[];
}

const IMPORT = /(?:from|import)\s*\(?\s*'(\.{1,2}\/[^']+)'/g;
const TOOL = /\btool(?:Path|Directory)\('([^']+)'/g;
const DEBIAN = /\bdebianTool\('([^']+)'/g;
/** A call whose argument is not a literal: then every tool name in that file counts. */
const VARIABLE_TOOL = /\btool(?:Path|Directory)\([^')]+\)/;
const LITERAL = /'([^'\n]+)'/g;

/** Reads from the sources of `file`, and of everything in the checkout that it imports, which tools
 *  it may start. */
export function needsOf(file: string): Needs {
  const [tools, debian] = [new Set<ToolName>(), new Set<DebianProgram>()];
  const seen = new Set<string>();
  const pending = [file];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    if (seen.has(next) || next.startsWith(import.meta.dirname) || !existsSync(next)) continue;
    seen.add(next);
    const text = readFileSync(next, 'utf8');
    for (const [, target = ''] of text.matchAll(IMPORT)) pending.push(join(dirname(next), target));
    for (const [, name = ''] of text.matchAll(VARIABLE_TOOL.test(text) ? LITERAL : TOOL)) if (name in RECIPES) tools.add(name as ToolName);
    for (const [, name = ''] of text.matchAll(DEBIAN)) if (name in DEBIAN_PACKAGES) debian.add(name as DebianProgram);
  }
  return { tools: [...tools], debian: [...debian] };
}
