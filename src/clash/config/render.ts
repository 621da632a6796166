import type { ClashConfig } from '../../config/schema.ts';
import type { Content } from '../subscription/content.ts';
import { fieldsOf, textOf, type Fields } from '../../io/untrusted.ts';
import { ClashError, nameOf, namesOf, omit } from '../subscription/document.ts';
import { createOwnListener, withoutOwnListeners, withoutOwnNodes } from './own-listener.ts';
import { lock, lockedKeys, SHARED_LISTENER, type User } from './locked.ts';
import { editNamed, editRules, mergeDeep, type Note, type Sourced } from './override.ts';
import { checkDialers } from './dialers.ts';
import { nodesOnly } from './mode-nodes.ts';
import { customDocument, fullSubscriptions, MAIN_GROUP, providerOf, type Parts } from './parts.ts';
import { describeUnproxied } from './routing.ts';
import { nodeProviders, withHealthChecks, withoutHttp, type Resource } from './providers.ts';
import { checkRule, completeGroup } from './references.ts';
import { BUILT_IN_TARGETS, parseRule, refuseInternal } from './rules.ts';
import { fingerprint } from '../subscription/fingerprint.ts';

/** Everything a config is made from. */
export interface Inputs {
  /** Subscriptions by name, in the order of the configuration, without those never fetched. */
  subscriptions: ReadonlyMap<string, Content>;
  /** Mode custom: the file's content. */
  custom?: Fields | undefined;
  users: readonly User[];
  /** Files of providers that have been fetched: paths within mihomo's directory, by the
   *  resource's key. */
  resources: ReadonlyMap<string, string>;
  /** Entries that mihomo refuses: names of nodes, whole rules, and a `bannedKey` for other
   *  entries. */
  banned: ReadonlySet<string>;
}

/** Identifies a refused group or provider, whose name may also be that of a node. */
export function bannedKey(kind: 'group' | 'proxy-provider' | 'rule-provider', name: string): string {
  return `${kind}\0${name}`;
}

/** A complete config for mihomo. */
export interface Rendered {
  config: Fields;
  /** The content of files that it refers to, by path within mihomo's directory. */
  files: ReadonlyMap<string, string>;
  resources: Resource[];
  /** Messages for `clash status`: entries that were left out or have no effect. */
  notes: string[];
  /** The target of the last rule. */
  main: string;
  /** The config's groups, one by one. */
  groups: Sourced<Fields>[];
  /** The config's rules with their origin. */
  rules: Sourced<string>[];
  /** The config's `proxies`, one by one. */
  proxies: Sourced<Fields>[];
  /** All nodes that this program knows, including those within inline providers. */
  nodes: Sourced<Fields>[];
}

export interface RenderContext {
  own: ClashConfig;
  /** The secret of mihomo's controller. */
  secret: string;
}

/** Makes mihomo's config: the parts of the mode, then the user's edits, and last the locked keys.
 *  @throws ClashError: an override or the user's file refers to something that does not exist */
export function render(given: Inputs, { own, secret }: RenderContext): Rendered {
  const notes: string[] = [];
  const note: Note = (message) => void notes.push(message);
  const isOwn = createOwnListener(own);
  const subscriptions = [...given.subscriptions].map(([name, content]): [string, Content] => [
    name,
    withoutOwnListeners(content, { isOwn, note: (message) => note(`subscription ${name}: ${message}`) }),
  ]);
  const inputs = { ...given, subscriptions: new Map(subscriptions) };
  const files = new Map<string, string>();
  const pathOf = (name: string) => `providers/${name}-${fingerprint(urisOf(inputs.subscriptions.get(name)))}.txt`;
  for (const [name, content] of inputs.subscriptions) if (content.kind === 'uris') files.set(pathOf(name), content.text);

  const edited = edit(partsOf(inputs, { own, pathOf, note }), { own, inputs, note });
  const reachable = withoutOwnNodes(edited.proxies, ({ value }) => value, { isOwn, note });
  const parts = checkDialers({ ...edited, proxies: reachable }, note);
  const rest = omit(own.override, ['rules', 'proxies', 'proxy-groups']);
  for (const key of lockedKeys(rest)) note(`clash.override.${key} is locked; its value is ignored`);
  const merged = mergeDeep({ ...parts.rest, 'proxy-providers': parts.proxyProviders, 'rule-providers': parts.ruleProviders }, rest);
  const resources: Resource[] = [];
  const ownProviders = (key: string) => (own.mode === 'custom' ? undefined : Object.keys(fieldsOf(rest[key])));
  const fetched = (key: string) => withoutHttp(fieldsOf(merged[key]), { files: inputs.resources, resources, own: ownProviders(key), note });
  const providers = { ...fetched('proxy-providers'), ...nodeProviders(parts.proxies, own) };
  const ruleProviders = fetched('rule-providers');

  const named = namedNodes(parts);
  const proxies = parts.proxies.filter(
    ({ value, subscription }) => own.mode !== 'nodes' || subscription === undefined || named.has(nameOf(value)),
  );
  const targets = new Set([...[...proxies, ...parts.groups].map(({ value }) => nameOf(value)), ...BUILT_IN_TARGETS]);
  const groups = parts.groups.map((group) => completeGroup(group, { targets, providers: Object.keys(providers), own, note }));
  const generated = own.mode === 'nodes' ? groups.find((group) => nameOf(group) === MAIN_GROUP) : undefined;
  const proxyProviders = withHealthChecks(providers, own, generated);
  const known = {
    targets,
    ruleProviders: new Set(Object.keys(ruleProviders)),
    subRules: new Set(Object.keys(fieldsOf(merged['sub-rules']))),
  };
  const main = [parts.main, nameOf(parts.groups[0]?.value ?? {})].find((name) => targets.has(name)) ?? 'REJECT';
  const fixed = (value: string): Sourced<string> => ({ value, origin: 'kube-registry', own: true });
  const rules = [
    ...(own.ports.shared === 0 ? [] : [fixed(refuseInternal(SHARED_LISTENER))]),
    ...parts.rules.filter((rule) => checkRule(rule, known, note)),
    fixed(`MATCH,${main}`),
  ];
  if (own.mode === 'full' && parts.proxies.length > 0) notes.push(...describeUnproxied({ rules, groups }));
  const config = {
    'log-level': 'warning',
    'geodata-mode': false,
    ...merged,
    proxies: proxies.map(({ value }) => value),
    'proxy-groups': groups,
    'proxy-providers': proxyProviders,
    'rule-providers': ruleProviders,
    rules: rules.map(({ value }) => value),
  };
  const locked = lock(config, { own, users: inputs.users, secret });
  const ownGroups = parts.groups.map((group, index) => ({ ...group, value: groups[index] ?? group.value }));
  return { config: locked, files, resources, notes, main, groups: ownGroups, rules, proxies, nodes: parts.proxies };
}

/** The config that mihomo uses until there is another: it refuses all traffic. */
export function renderNothing({ own, secret }: RenderContext, users: readonly User[]): Fields {
  const first = own.ports.shared === 0 ? [] : [refuseInternal(SHARED_LISTENER)];
  return lock({ 'log-level': 'warning', rules: [...first, 'MATCH,REJECT'] }, { own, users, secret });
}

function partsOf(
  { subscriptions, custom }: Inputs,
  { own, pathOf, note }: { own: ClashConfig; pathOf: (name: string) => string; note: Note },
): Parts {
  const context = { subscriptions, pathOf, several: own.subscriptions.length > 1, note };
  if (own.mode === 'nodes') return nodesOnly(context);
  if (own.mode === 'full') return fullSubscriptions(context);
  if (custom === undefined) throw new ClashError('clash.configFile: no usable config has been read');
  for (const key of lockedKeys(custom)) note(`clash.configFile: ${key} is locked; its value is ignored`);
  return customDocument(custom);
}

/** Removes the entries that mihomo refuses, then applies the user's edits. */
function edit(parts: Parts, { own, inputs, note }: { own: ClashConfig; inputs: Inputs; note: Note }): Parts {
  const { override } = own;
  const lists = [...inputs.subscriptions].filter(([, content]) => content.kind === 'uris').map(([name]) => name);
  // Only mihomo knows the nodes of share links: a filter deletes them, whether they exist or not.
  const noteNodes: Note = (message) => (lists.length > 0 ? undefined : note(message));
  const deleted = (override.proxies?.delete ?? []).map(String);
  const proxyProviders = { ...parts.proxyProviders };
  for (const name of deleted.length === 0 ? [] : lists) {
    const bare = deleted.map((node) => (node.startsWith(`${name}/`) ? node.slice(name.length + 1) : node));
    proxyProviders[providerOf(name)] = {
      ...proxyProviders[providerOf(name)],
      'exclude-filter': `^(?:${bare.map((node) => RegExp.escape(node)).join('|')})$`,
    };
  }
  const { banned } = inputs;
  const allowed = <T>(kind: 'proxy-provider' | 'rule-provider', providers: Record<string, T>): Record<string, T> =>
    Object.fromEntries(Object.entries(providers).filter(([name]) => !banned.has(bannedKey(kind, name))));
  const proxies = parts.proxies.filter(({ value, own }) => own || !banned.has(nameOf(value)));
  const rules = parts.rules.filter(({ value, own }) => own || !banned.has(value));
  const groups = parts.groups.filter(({ value, own }) => own || !banned.has(bannedKey('group', nameOf(value))));
  const left = [parts.proxies.length - proxies.length, parts.rules.length - rules.length, parts.groups.length - groups.length];
  for (const [index, what] of ['nodes', 'rules', 'groups'].entries()) {
    if ((left[index] ?? 0) > 0) note(`${left[index]} ${what} are left out, since mihomo does not understand them; the log names them`);
  }
  return {
    ...parts,
    proxyProviders: allowed('proxy-provider', proxyProviders),
    ruleProviders: allowed('rule-provider', parts.ruleProviders),
    proxies: editNamed(proxies, override.proxies, { path: 'clash.override.proxies', what: 'node', note: noteNodes }),
    groups: editNamed(groups, override['proxy-groups'], { path: 'clash.override.proxy-groups', what: 'group', note }),
    rules: editRules(rules, override.rules, { path: 'clash.override.rules', note }),
  };
}

/** Names that groups, rules and dialer-proxy refer to. mihomo finds a provider's node by name
 *  only if it is in `proxies` too. */
function namedNodes({ groups, rules, proxies, proxyProviders }: Parts): Set<string> {
  const providers = Object.values(proxyProviders).flatMap((provider) => [provider, fieldsOf(provider['override'])]);
  return new Set([
    ...[...proxies.map(({ value }) => value), ...providers].map((fields) => textOf(fields['dialer-proxy']) ?? ''),
    ...groups.flatMap(({ value }) => namesOf(value['proxies'])),
    ...rules.map(({ value }) => parseRule(value)?.target ?? ''),
  ]);
}

function urisOf(content: Content | undefined): string {
  return content?.kind === 'uris' ? content.text : '';
}
