import type { Fields } from '../../io/untrusted.ts';
import { nameOf, namesOf } from '../subscription/document.ts';
import type { Sourced } from './override.ts';
import { BUILT_IN_TARGETS, parseRule, type Rule } from './rules.ts';

/** Hosts that pulls from the usual upstreams reach: registries, their token servers, and the hosts
 *  of blobs to which they redirect. */
const PULL_HOSTS = [
  'registry-1.docker.io',
  'auth.docker.io',
  'production.cloudflare.docker.com',
  'docker-images-prod.6aa30f8b08e16409b46e0173d6de2f56.r2.cloudflarestorage.com',
  'ghcr.io',
  'pkg-containers.githubusercontent.com',
  'quay.io',
  'cdn01.quay.io',
  'registry.k8s.io',
  'us-west1-docker.pkg.dev',
  'gcr.io',
  'storage.googleapis.com',
  'mcr.microsoft.com',
  'eastus.data.mcr.microsoft.com',
];

export interface Routing {
  rules: readonly Sourced<string>[];
  /** As they are in the config. */
  groups: readonly Fields[];
}

/** The hosts of pulls that bypass all nodes: rules send them to DIRECT or REJECT, or to a group
 *  that leads there. Rules that only mihomo can judge (sets, geo data, addresses) count as not
 *  matching. */
export function describeUnproxied({ rules, groups }: Routing): string[] {
  const byName = new Map(groups.map((group) => [nameOf(group), group]));
  const parsed = rules.flatMap((source) => {
    const rule = parseRule(source.value);
    return rule === undefined ? [] : [{ rule, source }];
  });
  const found = PULL_HOSTS.flatMap((host) => {
    const match = parsed.find(({ rule }) => matches(rule, host));
    return match === undefined || reachesNode(match.rule.target, byName) ? [] : [{ host, ...match }];
  });
  return [...Map.groupBy(found, ({ source }) => source)].map(([{ origin, value }, matched]) => {
    const hosts = matched.map(({ host }) => host);
    return `no node is used for ${hosts.join(', ')}: ${origin}, ${JSON.stringify(value.slice(0, 100))}; a rule in clash.override.rules.prepend changes that`;
  });
}

function matches({ type, payload }: Rule, host: string): boolean {
  const suffix = payload.toLowerCase().replace(/^\+?\./, '');
  if (type === 'MATCH') return true;
  if (type === 'DOMAIN') return host === payload.toLowerCase();
  if (type === 'DOMAIN-SUFFIX') return host === suffix || host.endsWith(`.${suffix}`);
  if (type === 'DOMAIN-KEYWORD') return payload !== '' && host.includes(payload.toLowerCase());
  return (type === 'DST-PORT' && payload === '443') || (type === 'NETWORK' && payload.toLowerCase() === 'tcp');
}

/** Groups contain groups; at most this deep. */
const MAX_DEPTH = 20;

function reachesNode(target: string, groups: ReadonlyMap<string, Fields>, depth = 0): boolean {
  if ((BUILT_IN_TARGETS as readonly string[]).includes(target) || depth > MAX_DEPTH) return false;
  const group = groups.get(target);
  if (group === undefined) return true;
  const members = namesOf(group['proxies']);
  const hasOthers =
    namesOf(group['use']).length > 0 || Object.keys(group).some((key) => key.startsWith('include-all') && group[key] === true);
  // A select group starts with its first member; other groups with a live one.
  if (group['type'] === 'select' && members.length > 0) return reachesNode(members[0] ?? '', groups, depth + 1);
  return hasOthers || members.some((member) => reachesNode(member, groups, depth + 1));
}

const ADDRESS_RULES = new Set(['IP-CIDR', 'IP-CIDR6', 'IP-SUFFIX', 'IP-ASN', 'GEOIP']);

/** The first rule for which mihomo resolves every host that reaches it. */
export function firstLookup(rules: readonly string[]): string | undefined {
  return rules.find((line) => {
    const rule = parseRule(line);
    return rule !== undefined && ADDRESS_RULES.has(rule.type) && !/,\s*no-resolve\b/i.test(rule.options);
  });
}
