/** A rule as mihomo writes it: `TYPE,payload,target,…`, `MATCH,target`, `AND,((…),(…)),target`. */
export interface Rule {
  type: string;
  payload: string;
  /** A group, a node, DIRECT, REJECT …; of SUB-RULE: a list of sub-rules. */
  target: string;
  /** What follows: `,no-resolve`. */
  options: string;
}

/** Undefined for what is no rule. */
export function parseRule(line: string): Rule | undefined {
  const comma = line.indexOf(',');
  if (comma < 1) return undefined;
  const type = line.slice(0, comma).trim().toUpperCase();
  const rest = line.slice(comma + 1).trim();
  if (type === 'MATCH') return { type, payload: '', ...targetOf(rest) };
  // Logical rules, and regular expressions in parentheses, have commas inside.
  const end = rest.startsWith('(') ? rest.lastIndexOf('),') + 1 : type === 'DOMAIN-REGEX' ? lastTarget(rest) : rest.indexOf(',');
  if (end < 1) return undefined;
  return { type, payload: rest.slice(0, end).trim(), ...targetOf(rest.slice(end + 1)) };
}

function targetOf(text: string): { target: string; options: string } {
  const target = text.split(',', 1)[0] ?? '';
  return { target: target.trim(), options: text.slice(target.length) };
}

/** The comma before the target, where the payload may have commas too. */
function lastTarget(rest: string): number {
  return rest.replace(/,\s*(?:no-resolve|src)\s*$/i, '').lastIndexOf(',');
}

/** What every mihomo has without being told. */
export const BUILT_IN_TARGETS = ['DIRECT', 'REJECT', 'REJECT-DROP', 'PASS', 'PASS-RULE'] as const;

/** What the shared listener never leads to, whatever name stands for it: this pod, its node, the networks of the cluster, the
 *  metadata services of clouds. 198.18/15 is missing: a clash on the way answers DNS with addresses of it. */
const REFUSED = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '168.63.129.16/32',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.168.0.0/16',
  '224.0.0.0/3',
  '::/127',
  '64:ff9b::/96',
  'fc00::/7',
  'fe80::/10',
  'ff00::/8',
];

/** The first rule where the proxy is shared. Names are looked up for it, on this listener alone: what mihomo does for the
 *  registry never needs an address. */
export function refuseInternal(listener: string): string {
  const networks = REFUSED.map((network) => `(${network.includes(':') ? 'IP-CIDR6' : 'IP-CIDR'},${network})`);
  return `AND,((IN-NAME,${listener}),(OR,((DOMAIN,localhost),(DOMAIN-SUFFIX,localhost),${networks.join(',')}))),REJECT`;
}
