import { fieldsOf, itemsOf, type Fields } from '../../io/untrusted.ts';
import { encodeConfig } from '../config/encode.ts';
import { bannedKey, renderNothing, type RenderContext, type Rendered } from '../config/render.ts';
import { BUILT_IN_TARGETS, parseRule } from '../config/rules.ts';
import type { Copies } from '../subscription/copies.ts';
import { nameOf } from '../subscription/document.ts';
import type { Mihomo } from './mihomo.ts';

/** An entry that makes mihomo refuse a config. */
export interface Refused {
  /** Whether the user wrote the entry, in an override or in a config of their own. */
  own: boolean;
  /** What to add to `Inputs.banned`: a node's name, a whole rule, or a `bannedKey`. */
  subject: string;
  place: string;
  complaint: string;
}

export interface RefusedContext {
  context: RenderContext;
  copies: Copies;
  mihomo: Pick<Mihomo, 'test'>;
}

/** The file in which a part of a config is tested. */
const PART = 'candidate-part.json';
/** The caller finds further bad rules by another call. */
const MAX_BAD_RULES = 500;

/** Finds the entry that mihomo complains about, and others that it would complain about next.
 *  `mihomo -t` names one entry at a time, and for some complaints none, so this tests parts of
 *  the config alone. A test takes about 15 ms.
 *  @param complaint - the answer of `mihomo -t` about the whole config
 *  @returns an empty list if no entry is to blame */
export async function findRefused(complaint: string, rendered: Rendered, context: RefusedContext): Promise<Refused[]> {
  const node = blameNode(complaint, rendered);
  if (node !== undefined) return [node];
  if (complaint.startsWith('rules[')) return findRules(rendered, context);
  const group = rendered.groups[Number(/^proxy group\[(\d+)\]/.exec(complaint)?.[1] ?? Number.NaN)];
  if (group !== undefined) {
    const name = nameOf(group.value);
    return [{ own: group.own, subject: bannedKey('group', name), place: `${group.origin}, group ${JSON.stringify(name)}`, complaint }];
  }
  return [...(await findGroups(rendered, context)), ...(await findProviders(rendered, context))];
}

/** Reads `proxy 3: …` and `parse proxy provider subscription x error: proxy 3 error: …`. */
function blameNode(complaint: string, { config, proxies }: Rendered): Refused | undefined {
  const [, provider = '', index] = /^parse proxy provider (.+?) error: proxy (\d+) error/.exec(complaint) ?? [];
  if (index !== undefined) {
    const subject = nameOf(itemsOf(fieldsOf(fieldsOf(config['proxy-providers'])[provider])['payload'])[Number(index)] ?? {});
    return subject === '' ? undefined : { own: false, subject, place: `${provider}, node ${JSON.stringify(subject)}`, complaint };
  }
  const proxy = proxies[Number(/^proxy (\d+)\b/.exec(complaint)?.[1] ?? Number.NaN)];
  if (proxy === undefined) return undefined;
  const subject = nameOf(proxy.value);
  return { own: proxy.own, subject, place: `${proxy.origin}, node ${JSON.stringify(subject)}`, complaint };
}

async function testPart(part: Fields, { context, copies, mihomo }: RefusedContext): Promise<string | undefined> {
  await copies.write(PART, encodeConfig({ ...renderNothing(context, []), ...part }));
  return mihomo.test(copies.path(PART));
}

/** Finds all rules that mihomo refuses. mihomo stops at the first bad rule, so the rules before
 *  it are good. */
async function findRules({ rules, config }: Rendered, context: RefusedContext): Promise<Refused[]> {
  const targets = new Set(rules.map(({ value }) => parseRule(value)?.target ?? ''));
  for (const name of ['', ...BUILT_IN_TARGETS]) targets.delete(name);
  const stub = (name: string): Fields => ({ name, type: 'select', proxies: ['REJECT'] });
  const ruleProviders = Object.entries(fieldsOf(config['rule-providers'])).map(([name, value]) => {
    return [name, { type: 'inline', behavior: fieldsOf(value)['behavior'], payload: [] }];
  });
  const part = {
    'proxy-groups': [...targets].map(stub),
    'rule-providers': Object.fromEntries(ruleProviders),
    'sub-rules': config['sub-rules'],
  };
  const refused: Refused[] = [];
  const unknownTypes = new Map<string, string>();
  for (let start = 0; refused.length < MAX_BAD_RULES;) {
    const rest = rules.slice(start).filter(({ value }) => !unknownTypes.has(parseRule(value)?.type ?? ''));
    const complaint = await testPart({ ...part, rules: rest.map(({ value }) => value) }, context);
    const index = /^rules\[(\d+)\]/.exec(complaint ?? '')?.[1];
    const rule = rest[Number(index)];
    if (complaint === undefined || rule === undefined) break;
    refused.push({ own: rule.own, subject: rule.value, place: rule.origin, complaint: complaint.replace(/^rules\[\d+\] /, '') });
    start = rules.indexOf(rule) + 1;
    const type = /unsupported rule type: (\S+)$/.exec(complaint)?.[1];
    if (type !== undefined && parseRule(rule.value)?.type === type) unknownTypes.set(type, complaint.replace(/^rules\[\d+\] /, ''));
  }
  const found = new Set(refused.map(({ subject }) => subject));
  for (const { value, own, origin } of rules) {
    const complaint = unknownTypes.get(parseRule(value)?.type ?? '');
    if (complaint !== undefined && !found.has(value)) refused.push({ own, subject: value, place: origin, complaint });
  }
  return refused;
}

async function findGroups({ groups }: Rendered, context: RefusedContext): Promise<Refused[]> {
  const refused: Refused[] = [];
  for (const { value, own, origin } of groups) {
    const { use: _, ...alone } = value;
    const complaint = await testPart({ 'proxy-groups': [{ ...alone, proxies: ['REJECT'] }] }, context);
    const name = nameOf(value);
    if (complaint !== undefined) {
      refused.push({ own, subject: bannedKey('group', name), place: `${origin}, group ${JSON.stringify(name)}`, complaint });
    }
  }
  return refused;
}

async function findProviders({ config }: Rendered, context: RefusedContext): Promise<Refused[]> {
  const refused: Refused[] = [];
  for (const kind of ['proxy-provider', 'rule-provider'] as const) {
    const own = fieldsOf(context.context.own.override[`${kind}s`]);
    for (const [name, provider] of Object.entries(fieldsOf(config[`${kind}s`]))) {
      const complaint = await testPart({ [`${kind}s`]: { [name]: provider } }, context);
      if (complaint === undefined) continue;
      const isOwn = context.context.own.mode === 'custom' || Object.hasOwn(own, name);
      refused.push({ own: isOwn, subject: bannedKey(kind, name), place: `${kind} ${JSON.stringify(name)}`, complaint });
    }
  }
  return refused;
}
