import type { Content } from '../subscription/content.ts';
import { fieldsOf, itemsOf, textOf, textsOf, type Fields } from '../../io/untrusted.ts';
import { nameOf, namesOf, omit } from '../subscription/document.ts';
import type { Note, Sourced } from './override.ts';
import { BUILT_IN_TARGETS, parseRule } from './rules.ts';
import { sanitise, type Taken } from './sanitise.ts';

/** The parts of a config, before the user's edits. */
export interface Parts {
  proxies: Sourced<Fields>[];
  groups: Sourced<Fields>[];
  /** Without MATCH: `main` is its target. */
  rules: Sourced<string>[];
  proxyProviders: Record<string, Fields>;
  ruleProviders: Record<string, Fields>;
  /** All other keys. */
  rest: Fields;
  /** The target of traffic that no rule matches; '' if there is none. */
  main: string;
}

export interface PartsContext {
  subscriptions: ReadonlyMap<string, Content>;
  /** The path of a subscription's file of share links, within mihomo's directory. */
  pathOf: (subscription: string) => string;
  /** Several subscriptions are configured: names of nodes start with the subscription's. */
  several: boolean;
  note: Note;
}

/** The group of mode nodes. */
export const MAIN_GROUP = 'auto';

/** The name of the provider that holds a subscription's nodes. */
export function providerOf(subscription: string): string {
  return `subscription ${subscription}`;
}

/** The name, in mode nodes, of a provider that a subscription defines. */
export function innerProviderOf(subscription: string, provider: string): string {
  return `${providerOf(subscription)} ${provider}`;
}

/** The subscription that a provider belongs to. Names of subscriptions have no spaces. */
export function subscriptionOf(provider: string): string | undefined {
  return /^subscription (\S+)(?: |$)/.exec(provider)?.[1];
}

/** A provider of the share links in a file, which mihomo reads. */
export function linkProvider(path: string, prefix: string): Fields {
  return { type: 'file', path, ...(prefix === '' ? {} : { override: { 'additional-prefix': prefix } }) };
}

/** A provider in which the names of other nodes and groups are replaced, in `dialer-proxy` and
 *  `override.dialer-proxy`. */
export function renameDialers(provider: Fields, target: (name: string) => string): Fields {
  const override = fieldsOf(provider['override']);
  const rename = (fields: Fields) =>
    textOf(fields['dialer-proxy']) === undefined ? fields : { ...fields, 'dialer-proxy': target(String(fields['dialer-proxy'])) };
  return { ...rename(provider), ...(provider['override'] === undefined ? {} : { override: rename(override) }) };
}

/** Mode full: the parts of all subscriptions, in order. A name that an earlier subscription uses
 *  gets the subscription's name as a suffix. With several subscriptions, traffic that no rule
 *  matches goes to the first main group that has a live node. */
export function fullSubscriptions({ subscriptions, pathOf, note }: PartsContext): Parts {
  const parts: Parts = { proxies: [], groups: [], rules: [], proxyProviders: {}, ruleProviders: {}, rest: {}, main: '' };
  const mains: string[] = [];
  const names = new Set<string>([...BUILT_IN_TARGETS, 'GLOBAL', 'COMPATIBLE']);
  for (const [subscription, content] of subscriptions) {
    const taken = content.kind === 'clash' ? sanitise(content.document) : nothingTaken();
    for (const text of [...(content.notes ?? []), ...taken.notes]) note(`subscription ${subscription}: ${text}`);
    const own = renamed(taken, { subscription, names, parts });
    if (content.kind === 'uris') own.proxyProviders[providerOf(subscription)] = linkProvider(pathOf(subscription), '');
    Object.assign(parts.proxyProviders, own.proxyProviders);
    Object.assign(parts.ruleProviders, own.ruleProviders);
    const from = { origin: `subscription ${subscription}`, own: false };
    parts.proxies.push(...own.proxies.map((value) => ({ ...from, value, subscription })));
    if (own.groups.length === 0) own.groups.push(generatedGroup(subscription, own, names));
    parts.groups.push(...own.groups.map((value) => ({ ...from, value })));
    const last = own.rules.findIndex((line) => parseRule(line)?.type === 'MATCH');
    const rules = last < 0 ? own.rules : own.rules.slice(0, last);
    parts.rules.push(...rules.map((value, index) => ({ value, origin: `subscription ${subscription}, rules[${index}]`, own: false })));
    const target = parseRule(own.rules[last] ?? '')?.target ?? '';
    mains.push(names.has(target) ? target : nameOf(own.groups[0] ?? {}));
  }
  if (mains.length > 1) {
    const name = freeName(MAIN_GROUP, 'all', names);
    parts.groups.push({ value: { name, type: 'fallback', proxies: mains, lazy: false }, origin: 'mode full', own: false });
    return { ...parts, main: name };
  }
  return { ...parts, main: mains[0] ?? '' };
}

function nothingTaken(): Taken {
  return { proxies: [], groups: [], rules: [], proxyProviders: {}, ruleProviders: {}, notes: [] };
}

function generatedGroup(subscription: string, { proxies, proxyProviders }: Taken, names: Set<string>): Fields {
  const name = freeName(subscription, 'nodes', names);
  names.add(name);
  return { name, type: 'url-test', proxies: proxies.map(nameOf), use: Object.keys(proxyProviders), lazy: false, tolerance: 50 };
}

/** Renames the entries of `taken` whose names are in use already, wherever they are referred to. */
function renamed(taken: Taken, { subscription, names, parts }: { subscription: string; names: Set<string>; parts: Parts }): Taken {
  const rename = (list: readonly string[], used: Set<string>): Map<string, string> => {
    const map = new Map<string, string>();
    for (const name of list) map.set(name, freeName(name, subscription, used));
    for (const name of map.values()) used.add(name);
    return map;
  };
  const targets = rename([...taken.proxies, ...taken.groups].map(nameOf), names);
  const proxyProviders = rename(Object.keys(taken.proxyProviders), new Set(Object.keys(parts.proxyProviders)));
  const ruleProviders = rename(Object.keys(taken.ruleProviders), new Set(Object.keys(parts.ruleProviders)));
  const through = (map: Map<string, string>) => (name: string) => map.get(name) ?? name;
  const target = through(targets);
  return {
    ...taken,
    proxies: taken.proxies.map((node) => ({
      ...node,
      name: target(nameOf(node)),
      ...(typeof node['dialer-proxy'] === 'string' ? { 'dialer-proxy': target(node['dialer-proxy']) } : {}),
    })),
    groups: unique(taken.groups).map((group) => ({
      ...group,
      name: target(nameOf(group)),
      ...(group['proxies'] === undefined ? {} : { proxies: namesOf(group['proxies']).map(target) }),
      ...(group['use'] === undefined ? {} : { use: namesOf(group['use']).map(through(proxyProviders)) }),
    })),
    rules: taken.rules.map((line) => renameRule(line, target, through(ruleProviders))),
    proxyProviders: Object.fromEntries(
      Object.entries(taken.proxyProviders).map(([name, value]) => [through(proxyProviders)(name), renameDialers(value, target)]),
    ),
    ruleProviders: Object.fromEntries(Object.entries(taken.ruleProviders).map(([name, value]) => [through(ruleProviders)(name), value])),
  };
}

function renameRule(line: string, target: (name: string) => string, provider: (name: string) => string): string {
  const rule = parseRule(line);
  if (rule === undefined) return line;
  const payload = rule.type === 'RULE-SET' ? provider(rule.payload) : rule.payload;
  if (target(rule.target) === rule.target && payload === rule.payload) return line;
  return [rule.type, ...(rule.type === 'MATCH' ? [] : [payload]), target(rule.target)].join(',') + rule.options;
}

function unique(groups: readonly Fields[]): Fields[] {
  return [...new Map(groups.map((group) => [nameOf(group), group])).values()];
}

function freeName(name: string, suffix: string, used: ReadonlySet<string>): string {
  if (!used.has(name)) return name;
  let free = `${name} (${suffix})`;
  for (let count = 2; used.has(free); count++) free = `${name} (${suffix} ${count})`;
  return free;
}

const TAKEN_APART = ['proxies', 'proxy-groups', 'rules', 'proxy-providers', 'rule-providers'];

/** Mode custom: the parts of the user's own document. */
export function customDocument(document: Fields): Parts {
  const from = (key: string) => (value: Fields, index: number) => ({ value, origin: `clash.configFile, ${key}[${index}]`, own: true });
  const groups = itemsOf(document['proxy-groups']).map(from('proxy-groups'));
  const proxies = itemsOf(document['proxies']).map(from('proxies'));
  const lines = textsOf(document['rules']);
  const last = lines.findIndex((line) => parseRule(line)?.type === 'MATCH');
  const rules = (last < 0 ? lines : lines.slice(0, last)).map((value, index) => ({
    value,
    origin: `clash.configFile, rules[${index}]`,
    own: true,
  }));
  const providers = (key: string) =>
    Object.fromEntries(Object.entries(fieldsOf(document[key])).map(([name, value]) => [name, fieldsOf(value)]));
  return {
    proxies,
    groups,
    rules,
    proxyProviders: providers('proxy-providers'),
    ruleProviders: providers('rule-providers'),
    rest: omit(document, TAKEN_APART),
    main: parseRule(lines[last] ?? '')?.target ?? nameOf(groups[0]?.value ?? proxies[0]?.value ?? {}),
  };
}
