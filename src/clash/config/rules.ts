import { INTERNAL_NETWORKS } from '../../http/addresses.ts';

/** A rule in mihomo's syntax: `TYPE,payload,target,…`, `MATCH,target`, `AND,((…),(…)),target`. */
export interface Rule {
  type: string;
  payload: string;
  /** A group, a node, DIRECT, REJECT …; for SUB-RULE, the name of a list of sub-rules. */
  target: string;
  /** The rest of the rule: `,no-resolve`. */
  options: string;
}

/** @returns undefined if the line is not a rule */
export function parseRule(line: string): Rule | undefined {
  const comma = line.indexOf(',');
  if (comma < 1) return undefined;
  const type = line.slice(0, comma).trim().toUpperCase();
  const rest = line.slice(comma + 1).trim();
  if (type === 'MATCH') return { type, payload: '', ...targetOf(rest) };
  // Logical rules and regular expressions contain commas.
  const end = rest.startsWith('(') ? rest.lastIndexOf('),') + 1 : type === 'DOMAIN-REGEX' ? lastTarget(rest) : rest.indexOf(',');
  if (end < 1) return undefined;
  return { type, payload: rest.slice(0, end).trim(), ...targetOf(rest.slice(end + 1)) };
}

function targetOf(text: string): { target: string; options: string } {
  const target = text.split(',', 1)[0] ?? '';
  return { target: target.trim(), options: text.slice(target.length) };
}

/** @returns the index of the comma before the target; the payload may contain commas too */
function lastTarget(rest: string): number {
  return rest.replace(/,\s*(?:no-resolve|src)\s*$/i, '').lastIndexOf(',');
}

/** Targets that mihomo always has. */
export const BUILT_IN_TARGETS = ['DIRECT', 'REJECT', 'REJECT-DROP', 'PASS', 'PASS-RULE'] as const;

/** A NAT64 prefix, through which any IPv4 address can be reached, including internal ones. */
const NAT64 = '64:ff9b::/96';

/** The first rule when the proxy is shared: refuses internal addresses on that listener. mihomo
 *  looks names up for it, but only on this listener; requests of the registry need no DNS
 *  lookup. */
export function refuseInternal(listener: string): string {
  const networks = [...INTERNAL_NETWORKS, NAT64].map((network) => `(${network.includes(':') ? 'IP-CIDR6' : 'IP-CIDR'},${network})`);
  return `AND,((IN-NAME,${listener}),(OR,((DOMAIN,localhost),(DOMAIN-SUFFIX,localhost),${networks.join(',')}))),REJECT`;
}
