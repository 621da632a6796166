import { fieldsOf, itemsOf, textsOf, type Fields } from '../../io/untrusted.ts';
import { nameOf, omit } from '../subscription/document.ts';

/** What is taken of a subscription: nodes, groups and rules. Everything else in it is somebody else's wish for this machine. */
export interface Taken {
  proxies: Fields[];
  groups: Fields[];
  rules: string[];
  proxyProviders: Record<string, Fields>;
  ruleProviders: Record<string, Fields>;
  /** What was left out, and why. */
  notes: string[];
}

/** Ends of a chain that are no nodes. */
const NO_NODES = new Set(['direct', 'dns', 'reject', 'reject-drop', 'pass', 'pass-rule', 'compatible', 'rematch']);
const GROUP_TYPES = new Set(['select', 'url-test', 'fallback', 'load-balance']);
/** Of a group: never an interface, a mark or a URL of the subscription's own to send requests to. */
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
const PROXY_PROVIDER_KEYS = ['type', 'url', 'interval', 'filter', 'exclude-filter', 'exclude-type', 'override', 'payload'];
const RULE_PROVIDER_KEYS = ['type', 'url', 'interval', 'behavior', 'format', 'payload'];
/** Of a node: what would choose this machine's interfaces. */
const NODE_KEYS_LEFT_OUT = ['interface-name', 'routing-mark'];

/** By allow-list: what a full subscription may decide. */
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
  return {
    proxies: takeNodes(document, notes),
    groups: itemsOf(document['proxy-groups'])
      .filter((group) => nameOf(group) !== '' && GROUP_TYPES.has(String(group['type'])))
      .map((group) => pick(group, GROUP_KEYS)),
    rules: textsOf(document['rules']),
    proxyProviders: takeProviders(document['proxy-providers'], { keys: PROXY_PROVIDER_KEYS, what: 'proxy-provider', notes }),
    ruleProviders: takeProviders(document['rule-providers'], { keys: RULE_PROVIDER_KEYS, what: 'rule-provider', notes }),
    notes,
  };
}

/** The nodes of a document, each with a name of its own. */
export function takeNodes(document: Fields, notes: string[]): Fields[] {
  const taken = new Map<string, Fields>();
  for (const node of itemsOf(document['proxies'])) {
    const name = nameOf(node);
    const type = node['type'];
    if (name === '' || typeof type !== 'string') {
      notes.push('a node without name or type is left out');
    } else if (NO_NODES.has(type.toLowerCase())) {
      notes.push(`node ${JSON.stringify(name)} of type ${type} is left out`);
    } else {
      let free = name;
      for (let count = 2; taken.has(free); count++) free = `${name} ${count}`;
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

/** Providers whose content comes over HTTP or stands in the document; files of this machine are nobody's to name. */
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
