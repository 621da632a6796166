import { fieldsOf, textOf, type Fields } from '../../io/untrusted.ts';
import type { Content } from '../subscription/content.ts';
import { nameOf, namesOf } from '../subscription/document.ts';
import { innerProviderOf, linkProvider, MAIN_GROUP, providerOf, renameDialers, type Parts, type PartsContext } from './parts.ts';
import { BUILT_IN_TARGETS } from './rules.ts';
import { takeGroups, takeNodes, takeProxyProviders } from './sanitise.ts';

/** Mode nodes: one url-test group over the nodes of all subscriptions, including those of the
 *  subscriptions' own providers. If there are several subscriptions, a node's name starts with the
 *  name of its subscription. */
export function nodesOnly({ subscriptions, pathOf, several, note }: PartsContext): Parts {
  const group = { name: MAIN_GROUP, type: 'url-test', lazy: false, tolerance: 50 };
  const parts: Parts = {
    proxies: [],
    groups: [{ value: group, origin: 'mode nodes', own: false }],
    rules: [],
    proxyProviders: {},
    ruleProviders: {},
    rest: {},
    main: MAIN_GROUP,
  };
  for (const [subscription, content] of subscriptions) {
    const prefix = several ? `${subscription}/` : '';
    const notes = [...(content.notes ?? [])];
    if (content.kind === 'uris') parts.proxyProviders[providerOf(subscription)] = linkProvider(pathOf(subscription), prefix);
    else addDocument(parts, content, { subscription, prefix, notes });
    for (const text of notes) note(`subscription ${subscription}: ${text}`);
  }
  return parts;
}

interface DocumentContext {
  subscription: string;
  prefix: string;
  notes: string[];
}

/** Adds the nodes and providers of a document, and those groups that nodes are chained to by
 *  `dialer-proxy`. */
function addDocument(
  parts: Parts,
  { document }: Extract<Content, { kind: 'clash' }>,
  { subscription, prefix, notes }: DocumentContext,
): void {
  const nodes = takeNodes(document, notes);
  const providers = takeProxyProviders(document, notes);
  const groups = new Map(takeGroups(document, []).map((group) => [nameOf(group), group]));
  const origin = `subscription ${subscription}`;
  const names = new Set(nodes.map(nameOf));
  const target = (name: string): string => {
    if (names.has(name)) return prefix + name;
    return groups.has(name) ? chainGroup(subscription, name) : name;
  };
  for (const node of nodes) {
    const dialer = textOf(node['dialer-proxy']);
    const value = { ...node, name: prefix + nameOf(node), ...(dialer === undefined ? {} : { 'dialer-proxy': target(dialer) }) };
    parts.proxies.push({ value, origin, own: false, subscription });
  }
  for (const [name, provider] of Object.entries(providers)) {
    parts.proxyProviders[innerProviderOf(subscription, name)] = renameDialers(withPrefix(provider, prefix), target);
  }
  const dialers = [...nodes, ...Object.values(providers), ...Object.values(providers).map((provider) => fieldsOf(provider['override']))];
  for (const name of reachable(
    groups,
    dialers.map((fields) => textOf(fields['dialer-proxy']) ?? ''),
  )) {
    const group = groups.get(name) ?? {};
    const use = namesOf(group['use']).map((provider) => innerProviderOf(subscription, provider));
    const value = {
      ...group,
      name: chainGroup(subscription, name),
      proxies: namesOf(group['proxies']).map(target),
      ...(use.length === 0 ? {} : { use }),
    };
    parts.groups.push({ value, origin, own: false });
  }
}

/** The provider, with `prefix` before the names of its nodes. */
function withPrefix(provider: Fields, prefix: string): Fields {
  if (prefix === '') return provider;
  const override = fieldsOf(provider['override']);
  return { ...provider, override: { ...override, 'additional-prefix': prefix + (textOf(override['additional-prefix']) ?? '') } };
}

/** The name of a group that nodes of a subscription are chained to. */
function chainGroup(subscription: string, name: string): string {
  return `${providerOf(subscription)}, group ${name}`;
}

/** The names of groups reachable through these names. */
function reachable(groups: ReadonlyMap<string, Fields>, names: readonly string[]): Set<string> {
  const found = new Set<string>();
  function visit(name: string): void {
    const group = groups.get(name);
    if (group === undefined || found.has(name)) return;
    found.add(name);
    for (const member of namesOf(group['proxies'])) visit(member);
  }
  for (const name of names) visit(name);
  for (const name of BUILT_IN_TARGETS) found.delete(name);
  return found;
}
