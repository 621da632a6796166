import { fieldsOf, itemsOf, textsOf, type Fields } from '../../io/untrusted.ts';
import { nameOf, namesOf, omit } from '../subscription/document.ts';

/** The parts of a subscription that are used: nodes, groups, rules and providers. Its other keys
 *  are ignored. */
export interface Taken {
  proxies: Fields[];
  groups: Fields[];
  rules: string[];
  proxyProviders: Record<string, Fields>;
  ruleProviders: Record<string, Fields>;
  /** The dropped entries, with the reason. */
  notes: string[];
}

/** Types of proxies that are not nodes. */
const NO_NODES = new Set(['direct', 'dns', 'reject', 'reject-drop', 'pass', 'pass-rule', 'compatible', 'rematch']);
const GROUP_TYPES = new Set(['select', 'url-test', 'fallback', 'load-balance']);
/** The keys of a group that are used. A subscription chooses no interface, routing mark or test
 *  URL. */
const GROUP_KEYS = [
  'name',
  'type',
  'proxies',
  'use',
  'include-all',
  'include-all-proxies',
  'include-all-providers',
  'filter',
  'exclude-filter',
  'exclude-type',
  'tolerance',
  'strategy',
  'lazy',
  'timeout',
  'max-failed-times',
  'disable-udp',
];
const PROXY_PROVIDER_KEYS = [
  'type',
  'url',
  'interval',
  'header',
  'filter',
  'exclude-filter',
  'exclude-type',
  'dialer-proxy',
  'override',
  'payload',
];
const RULE_PROVIDER_KEYS = ['type', 'url', 'interval', 'header', 'behavior', 'format', 'payload'];
/** Line numbers in one note. */
const MAX_LINES_SHOWN = 5;
/** Keys of a node that are removed: they would choose this machine's interfaces. */
const NODE_KEYS_LEFT_OUT = ['interface-name', 'routing-mark'];

/** Takes the parts of a document that a subscription may decide in mode full, by allow-list. */
export function sanitise(document: Fields): Taken {
  const notes: string[] = [];
  const known = new Set(['proxies', 'proxy-groups', 'proxy-providers', 'rules', 'rule-providers']);
  const foreign = Object.keys(document).filter((key) => !known.has(key));
  if (foreign.length > 0)
    notes.push(
      `left out: ${foreign
        .map((key) => key.slice(0, 40))
        .sort()
        .join(', ')}`,
    );
  const groups = takeGroups(document, notes);
  return {
    proxies: takeNodes(document, notes),
    groups,
    rules: textsOf(document['rules']),
    proxyProviders: takeProxyProviders(document, notes),
    ruleProviders: takeRuleProviders(document, notes),
    notes,
  };
}

/** mihomo refuses a whole rule set for one line that is neither text nor a number, such as `true`
 *  or `{ domain: a.example }`. It skips and logs lines of text that it cannot parse. */
function takeRuleProviders(document: Fields, notes: string[]): Record<string, Fields> {
  const providers = takeProviders(document['rule-providers'], { keys: RULE_PROVIDER_KEYS, what: 'rule-provider', notes });
  return Object.fromEntries(
    Object.entries(providers).map(([name, provider]) => {
      const { payload } = provider;
      if (payload === undefined) return [name, provider];
      const lines: unknown[] = Array.isArray(payload) ? payload : [];
      const bad = lines.flatMap((line, index) => (isLine(line) ? [] : [index + 1]));
      if (bad.length > 0) notes.push(describeBadLines(name, bad));
      return [name, { ...provider, payload: lines.filter(isLine) }];
    }),
  );
}

function isLine(line: unknown): boolean {
  return ['string', 'number', 'bigint'].includes(typeof line);
}

function describeBadLines(provider: string, numbers: readonly number[]): string {
  const shown = numbers.slice(0, MAX_LINES_SHOWN).join(', ');
  const more = numbers.length > MAX_LINES_SHOWN ? ` and ${numbers.length - MAX_LINES_SHOWN} more` : '';
  const lines = numbers.length === 1 ? 'line' : 'lines';
  return `rule-provider ${JSON.stringify(provider.slice(0, 60))}: ${lines} ${shown}${more} of its payload left out: a rule is text`;
}

/** Takes the groups of a document. A group that contains itself, directly or through others,
 *  loses the member that closes the loop. */
export function takeGroups(document: Fields, notes: string[]): Fields[] {
  const groups = new Map<string, Fields>();
  const nodes = new Set(itemsOf(document['proxies']).map(nameOf));
  for (const group of itemsOf(document['proxy-groups'])) {
    const name = nameOf(group);
    const type = String(group['type']);
    const taken = { ...pick(group, GROUP_KEYS), name };
    // Within a group, the group's own name means the node of that name, which takeNodes renames.
    const proxies = namesOf(group['proxies']).map((member) => (member === name && nodes.has(name) ? `${name} 2` : member));
    if (name !== '' && GROUP_TYPES.has(type)) groups.set(name, group['proxies'] === undefined ? taken : { ...taken, proxies });
    else notes.push(`proxy-group ${JSON.stringify(name.slice(0, 60))} of type ${type.slice(0, 20)} is left out: mihomo has no such groups`);
  }
  breakLoops(groups, notes);
  return [...groups.values()];
}

function breakLoops(groups: Map<string, Fields>, notes: string[]): void {
  const done = new Set<string>();
  function visit(name: string, path: readonly string[]): void {
    const group = groups.get(name);
    if (group === undefined || done.has(name)) return;
    const within = [...path, name];
    const members = namesOf(group['proxies']);
    const kept = members.filter((member) => !within.includes(member));
    if (kept.length < members.length) {
      groups.set(name, { ...group, proxies: kept });
      notes.push(`proxy-group ${JSON.stringify(name)} contains itself; that member is left out`);
    }
    for (const member of kept) visit(member, within);
    done.add(name);
  }
  for (const name of groups.keys()) visit(name, []);
}

export function takeProxyProviders(document: Fields, notes: string[]): Record<string, Fields> {
  const providers = takeProviders(document['proxy-providers'], { keys: PROXY_PROVIDER_KEYS, what: 'proxy-provider', notes });
  return Object.fromEntries(
    Object.entries(providers).map(([name, provider]) => {
      const override = fieldsOf(provider['override']);
      return [
        name,
        Object.keys(override).length === 0 ? omit(provider, ['override']) : { ...provider, override: omit(override, NODE_KEYS_LEFT_OUT) },
      ];
    }),
  );
}

/** Returns the nodes of a document, with names that are unique among nodes and groups. */
export function takeNodes(document: Fields, notes: string[]): Fields[] {
  const taken = new Map<string, Fields>();
  const groups = new Set(itemsOf(document['proxy-groups']).map(nameOf));
  for (const node of itemsOf(document['proxies'])) {
    const name = nameOf(node);
    const type = node['type'];
    if (name === '' || typeof type !== 'string') {
      notes.push('a node without name or type is left out');
    } else if (NO_NODES.has(type.toLowerCase())) {
      notes.push(`node ${JSON.stringify(name)} of type ${type} is left out`);
    } else {
      let free = name;
      for (let count = 2; taken.has(free) || groups.has(free); count++) free = `${name} ${count}`;
      taken.set(free, { ...omit(node, NODE_KEYS_LEFT_OUT), name: free });
    }
  }
  return [...taken.values()];
}

interface ProviderPlace {
  keys: string[];
  what: string;
  notes: string[];
}

/** Takes providers with a URL or with their content in the document. A provider that names a file
 *  of this machine is left out. */
function takeProviders(providers: unknown, { keys, what, notes }: ProviderPlace): Record<string, Fields> {
  const taken: Record<string, Fields> = {};
  for (const [name, value] of Object.entries(fieldsOf(providers))) {
    const provider = pick(fieldsOf(value), keys);
    const url = provider['url'];
    const remote = provider['type'] === 'http' && typeof url === 'string' && /^https?:\/\//.test(url) && URL.canParse(url);
    const inline = provider['type'] === 'inline' && Array.isArray(provider['payload']);
    if (name !== '__proto__' && (remote || inline)) taken[name] = provider;
    else notes.push(`${what} ${JSON.stringify(name.slice(0, 60))} is left out: only type http with a URL and type inline are taken`);
  }
  return taken;
}

function pick(fields: Fields, keys: readonly string[]): Fields {
  return Object.fromEntries(keys.flatMap((key) => (Object.hasOwn(fields, key) ? [[key, fields[key]]] : [])));
}
