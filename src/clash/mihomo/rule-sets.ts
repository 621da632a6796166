import { fieldsOf, textsOf } from '../../io/untrusted.ts';
import type { Copies } from '../subscription/copies.ts';
import { ClashError } from '../subscription/document.ts';
import { parseYaml } from '../subscription/yaml/parse-yaml.ts';
import type { Mihomo } from './mihomo.ts';

/** As a rule-provider declares it. */
export interface RuleSet {
  /** domain, ipcidr or classical. */
  behavior: string;
  /** yaml, text or mrs. */
  format: string;
}

export interface PrepareContext extends RuleSet {
  /** The file to write, within mihomo's directory. */
  path: string;
  copies: Copies;
  mihomo: Pick<Mihomo, 'compileRules'>;
}

/** The extension of a compiled rule set, which shows its format. */
const COMPILED = '.mrs';
/** mihomo's format mrs is compressed by Zstandard (RFC 8878, section 3.1.1: its magic number). */
const MRS_MAGIC = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);
const RULE = /^[A-Z][A-Z0-9-]+\s*,\s*\S/;

/** Checks a rule set and writes it, compiled if it can be: mihomo takes seconds for 100,000 domains
 *  in YAML, and refuses all connections during that time; compiled, it takes some milliseconds.
 *  @returns the path that was written
 *  @throws ClashError: there is no rule in it */
export async function prepareRuleSet(bytes: Uint8Array, { behavior, format, path, copies, mihomo }: PrepareContext): Promise<string> {
  if (format === 'mrs') {
    if (!MRS_MAGIC.equals(bytes.subarray(0, MRS_MAGIC.length))) throw new ClashError('it is not a rule set in the format mrs');
    await copies.write(path, bytes);
    return path;
  }
  if (behavior === 'classical') {
    await checkClassical(new TextDecoder().decode(bytes), format);
    await copies.write(path, bytes);
    return path;
  }
  const source = `${path}.source`;
  const target = path + COMPILED;
  await copies.write(source, bytes);
  try {
    await mihomo.compileRules({ behavior, format, source: copies.path(source), target: copies.path(`${target}.tmp`) });
    await copies.move(`${target}.tmp`, target);
    return target;
  } finally {
    await copies.remove(source);
    await copies.remove(`${target}.tmp`);
  }
}

/** Classical rules cannot be compiled; mihomo treats a file without rules as an empty set. */
async function checkClassical(text: string, format: string): Promise<void> {
  const { document } = format === 'text' ? { document: undefined } : await parseYaml(text);
  const rules = format === 'text' ? text.split('\n').map((line) => line.trim()) : textsOf(fieldsOf(document)['payload']);
  if (!rules.some((rule) => RULE.test(rule))) throw new ClashError('there is no rule in it');
}
