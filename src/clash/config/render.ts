import type { ClashConfig } from '../../config/schema.ts';
import type { Content } from '../subscription/content.ts';
import { fieldsOf, textOf, type Fields } from '../../io/untrusted.ts';
import { ClashError, nameOf, namesOf, omit } from '../subscription/document.ts';
import { createOwnListener, withoutOwnListeners, withoutOwnNodes } from './own-listener.ts';
import { lock, lockedKeys, SHARED_LISTENER, type User } from './locked.ts';
import { editNamed, editRules, listNames, mergeDeep, type Note, type Sourced } from './override.ts';
import { checkDialers } from './dialers.ts';
import { nodesOnly } from './mode-nodes.ts';
import { customDocument, fullSubscriptions, MAIN_GROUP, providerOf, type Parts } from './parts.ts';
import { describeUnproxied } from './routing.ts';
import { BUILT_IN_TARGETS, parseRule, refuseInternal } from './rules.ts';
import { fingerprint } from '../subscription/fingerprint.ts';

/** All that a config is made from. */
export interface Inputs {
  /** By name, in the configuration's order; those that were never fetched are missing. */
  subscriptions: ReadonlyMap<string, Content>;
  /** Mode custom: the file's content. */
  custom?: Fields | undefined;
  users: readonly User[];
  /** Files that are there already, by the resource's key: paths within mihomo's directory. */
  resources: ReadonlyMap<string, string>;
  /** What mihomo does not understand: names of nodes, whole rules, and for other entries a `bannedKey`. */
  banned: ReadonlySet<string>;
}

/** What bans an entry that shares its name with entries of other kinds. */
export function bannedKey(kind: 'group' | 'proxy-provider' | 'rule-provider', name: string): string {
  return `${kind}\0${name}`;
}

/** What a provider's URL brings. This program fetches it: mihomo would print the URL, and would wait for it at its start. */
export interface Resource {
  key: string;
  /** The provider, for messages: `rule-provider "ads"`. */
  name: string;
  /** Of a rule-provider: what the content has to be. */
  ruleSet?: { behavior: string; format: string };
  url: string;
  /** Milliseconds. */
  interval: number;
  headers: Record<string, string>;
  /** Named by the user, who may go to internal addresses; a subscription may not. */
  own: boolean;
}

/** A whole config for mihomo. */
export interface Rendered {
  config: Fields;
  /** Files that it names, by path within mihomo's directory. */
  files: ReadonlyMap<string, string>;
  resources: Resource[];
  /** What was left out or has no effect. */
  notes: string[];
  /** The group that most goes through. */
  main: string;
  /** The config's groups, one by one. */
  groups: Sourced<Fields>[];
  /** Where each of the config's rules comes from, and whether the user wrote it. */
  rules: Sourced<string>[];
  /** The config's `proxies`, one by one. */
  proxies: Sourced<Fields>[];
  /** All nodes that are known here, those within providers among them. */
  nodes: Sourced<Fields>[];
}

export interface RenderContext {
  own: ClashConfig;
  /** The controller's. */
  secret: string;
}

/** Makes mihomo's config: the mode's parts, the user's edits, and last the locked keys.
 *  @throws ClashError: an override or the user's file names what there is not */
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
  // The user's own nodes, too.
  const proxiesElsewhere = withoutOwnNodes(edited.proxies, ({ value }) => value, { isOwn, note });
  const parts = checkDialers({ ...edited, proxies: proxiesElsewhere }, note);
  const rest = omit(own.override, ['rules', 'proxies', 'proxy-groups']);
  for (const key of lockedKeys(rest)) note(`clash.override.${key} is locked, and what it says is not used`);
  const merged = mergeDeep({ ...parts.rest, 'proxy-providers': parts.proxyProviders, 'rule-providers': parts.ruleProviders }, rest);
  const resources: Resource[] = [];
  const ownProviders = (key: string) => (own.mode === 'custom' ? undefined : Object.keys(fieldsOf(rest[key])));
  const fetched = (key: string) => withoutHttp(fieldsOf(merged[key]), { inputs, resources, own: ownProviders(key), note });
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

/** What mihomo runs with while there is nothing else: it refuses all. */
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
  if (custom === undefined) throw new ClashError('clash.configFile: there is none that can be used');
  for (const key of lockedKeys(custom)) note(`clash.configFile: ${key} is locked, and what it says is not used`);
  return customDocument(custom);
}

/** The user's edits. What mihomo does not understand is gone before them. */
function edit(parts: Parts, { own, inputs, note }: { own: ClashConfig; inputs: Inputs; note: Note }): Parts {
  const { override } = own;
  const lists = [...inputs.subscriptions].filter(([, content]) => content.kind === 'uris').map(([name]) => name);
  // Nodes of a list of URIs are known to mihomo alone: they are deleted by a filter, whether they are there or not.
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

/** What groups and rules go to by name: nodes of a provider are reached so only if they stand for themselves as well. */
function namedNodes({ groups, rules, proxies, proxyProviders }: Parts): Set<string> {
  const providers = Object.values(proxyProviders).flatMap((provider) => [provider, fieldsOf(provider['override'])]);
  return new Set([
    ...[...proxies.map(({ value }) => value), ...providers].map((fields) => textOf(fields['dialer-proxy']) ?? ''),
    ...groups.flatMap(({ value }) => namesOf(value['proxies'])),
    ...rules.map(({ value }) => parseRule(value)?.target ?? ''),
  ]);
}

/** Mode nodes: each subscription's nodes as a provider. */
function nodeProviders(proxies: readonly Sourced<Fields>[], own: ClashConfig): Record<string, Fields> {
  const providers: Record<string, Fields> = {};
  if (own.mode !== 'nodes') return providers;
  for (const { value, subscription } of proxies) {
    if (subscription === undefined) continue;
    const provider = (providers[providerOf(subscription)] ??= { type: 'inline', payload: [] });
    (provider['payload'] as Fields[]).push(value);
  }
  return providers;
}

/** What a registry answers at /v2/ to a client that it serves: 200, 401 without a token, or 405 where HEAD is not known. 403, 429, 5xx
 *  and redirects say that the node's address is not welcome, or that something else than the registry answers. */
const EXPECTED_STATUS = '200-299/401/405';

function healthCheck({ healthCheck }: ClashConfig): { url: string; interval: number; 'expected-status': string } {
  const interval = Math.max(1, Math.round(healthCheck.interval / 1000));
  return { url: healthCheck.url, interval, 'expected-status': EXPECTED_STATUS };
}

/** mihomo judges a node of a provider by the provider's check, where the group tests the same URL: what stands in the
 *  generated group, with the user's override of it, has to stand there too. */
function withHealthChecks(providers: Record<string, Fields>, own: ClashConfig, group: Fields | undefined): Record<string, Fields> {
  const {
    url,
    interval = healthCheck(own).interval,
    'expected-status': expected = '*',
  }: Fields = group?.['url'] === undefined ? healthCheck(own) : group;
  const check = { enable: true, url, interval, 'expected-status': expected, lazy: own.mode !== 'nodes' };
  return Object.fromEntries(Object.entries(providers).map(([name, provider]) => [name, { 'health-check': check, ...provider }]));
}

interface HttpContext {
  inputs: Inputs;
  resources: Resource[];
  /** Names of the providers that the user wrote; undefined: all. */
  own: string[] | undefined;
  note: Note;
}

/** Providers with a URL become files that this program fetches. */
function withoutHttp(providers: Fields, { inputs, resources, own, note }: HttpContext): Record<string, Fields> {
  return Object.fromEntries(
    Object.entries(providers).map(([name, value]) => {
      const provider = fieldsOf(value);
      const url = provider['url'];
      if (provider['type'] !== 'http' || typeof url !== 'string') return [name, provider];
      const headers = headersOf(provider['header']);
      const key = fingerprint(url, JSON.stringify(headers));
      const seconds = Number(provider['interval'] ?? 86_400);
      const interval = Math.max(3600, Number.isFinite(seconds) ? seconds : 86_400) * 1000;
      if (!resources.some((resource) => resource.key === key)) {
        const rules = provider['behavior'] !== undefined;
        const ruleSet = {
          behavior: (textOf(provider['behavior']) ?? '').toLowerCase(),
          format: (textOf(provider['format']) ?? 'yaml').toLowerCase(),
        };
        const kind = rules ? 'rule-provider' : 'proxy-provider';
        resources.push({
          key,
          name: `${kind} ${JSON.stringify(name)}`,
          url,
          interval,
          headers,
          own: own === undefined || own.includes(name),
          ...(rules ? { ruleSet } : {}),
        });
      }
      const rest = omit(provider, ['url', 'interval', 'header', 'proxy', 'size-limit', 'path']);
      const path = inputs.resources.get(key);
      if (path === undefined)
        note(`${provider['behavior'] === undefined ? 'proxy' : 'rule'}-provider ${JSON.stringify(name)} has not been fetched yet`);
      // Rules that are not there yet are none; nodes that are not there make mihomo say so.
      if (path === undefined && provider['behavior'] !== undefined)
        return [name, { ...omit(rest, ['format']), type: 'inline', payload: [] }];
      const compiled = path?.endsWith('.mrs') === true ? { format: 'mrs' } : {};
      return [name, { ...rest, ...compiled, type: 'file', path: path ?? `providers/${key}-none` }];
    }),
  );
}

/** mihomo writes a header's values as a list. */
function headersOf(header: unknown): Record<string, string> {
  return Object.fromEntries(
    Object.entries(fieldsOf(header)).map(([name, value]) => [name, Array.isArray(value) ? value.join(', ') : String(value)]),
  );
}

interface GroupContext {
  targets: ReadonlySet<string>;
  providers: readonly string[];
  own: ClashConfig;
  note: Note;
}

/** A group that names only what there is, tests against the health check, and refuses where it is empty: mihomo goes out
 *  directly by default.
 *  @throws ClashError: the user's own group names what there is not */
function completeGroup(group: Sourced<Fields>, { targets, providers, own, note }: GroupContext): Fields {
  const { value, origin } = group;
  const only = (key: 'proxies' | 'use', known: (name: string) => boolean, what: string): string[] =>
    namesOf(value[key]).filter((name) => {
      if (known(name)) return true;
      const message = `${origin}: the group ${JSON.stringify(nameOf(value))} names the ${what} ${JSON.stringify(name)}, which there is not`;
      if (group.own) throw new ClashError(`${message}; there ${listNames(what === 'provider' ? providers : [...targets])}`);
      note(message);
      return false;
    });
  const generated = own.mode === 'nodes' && nameOf(value) === MAIN_GROUP;
  const proxies = only('proxies', (name) => targets.has(name), 'group or node');
  const use = generated && value['use'] === undefined ? [...providers] : only('use', (name) => providers.includes(name), 'provider');
  const everything = ['include-all', 'include-all-proxies', 'include-all-providers'].some((key) => value[key] === true);
  const empty = proxies.length === 0 && use.length === 0 && !everything;
  const tested = value['type'] !== 'select';
  const members = empty ? ['REJECT'] : proxies;
  return {
    'empty-fallback': 'REJECT',
    ...(tested ? (value['url'] === undefined ? healthCheck(own) : omit(healthCheck(own), ['expected-status'])) : {}),
    ...value,
    ...(members.length > 0 ? { proxies: members } : { proxies: undefined }),
    ...(use.length > 0 ? { use } : { use: undefined }),
  };
}

interface Known {
  targets: ReadonlySet<string>;
  ruleProviders: ReadonlySet<string>;
  subRules: ReadonlySet<string>;
}

/** Whether a rule can be used. @throws ClashError: one of the user's cannot */
function checkRule({ value, origin, own }: Sourced<string>, known: Known, note: Note): boolean {
  const rule = parseRule(value);
  const wrong = rule === undefined || rule.target === '' ? 'is no rule' : unknownIn(rule, known);
  if (wrong === undefined) return true;
  const message = `${origin}: ${JSON.stringify(value.slice(0, 200))} ${wrong}`;
  if (own) throw new ClashError(message);
  note(`${message.replace(/; there are .*$/, '')}; it is left out`);
  return false;
}

function unknownIn({ type, payload, target }: NonNullable<ReturnType<typeof parseRule>>, known: Known): string | undefined {
  if (type === 'RULE-SET' && !known.ruleProviders.has(payload)) {
    return `names the rule-provider ${JSON.stringify(payload)}, which there is not; there ${listNames([...known.ruleProviders])}`;
  }
  if (type === 'SUB-RULE') {
    return known.subRules.has(target)
      ? undefined
      : `names the sub-rules ${JSON.stringify(target)}, which there are not; there ${listNames([...known.subRules])}`;
  }
  if (known.targets.has(target)) return undefined;
  return `names ${JSON.stringify(target)}, and there is no group or node of that name; there ${listNames([...known.targets])}`;
}

function urisOf(content: Content | undefined): string {
  return content?.kind === 'uris' ? content.text : '';
}
