import { fieldsOf, textOf, type Fields } from '../../io/untrusted.ts';
import { ClashError, nameOf } from '../subscription/document.ts';
import type { Note, Sourced } from './override.ts';
import type { Parts } from './parts.ts';
import { BUILT_IN_TARGETS } from './rules.ts';

/** Drops nodes that are chained (`dialer-proxy`) to a missing node or group, or to themselves:
 *  mihomo refuses the whole config for one of them.
 *  @throws ClashError: such a node is the user's own */
export function checkDialers(parts: Parts, note: Note): Parts {
  const groups = parts.groups.map(({ value }) => nameOf(value));
  let { proxies } = parts;
  for (;;) {
    const known = new Set([...proxies.map(({ value }) => nameOf(value)), ...groups, ...BUILT_IN_TARGETS]);
    const dialers = new Map(proxies.map(({ value }) => [nameOf(value), textOf(value['dialer-proxy'])]));
    const kept = proxies.filter((node) => {
      const dialer = dialerOf(node.value);
      const problem = dialer === undefined ? undefined : problemOf(nameOf(node.value), { dialer, known, dialers });
      return problem === undefined || leaveOut(node, problem, note);
    });
    if (kept.length === proxies.length) break;
    proxies = kept;
  }
  const known = new Set([...proxies.map(({ value }) => nameOf(value)), ...groups, ...BUILT_IN_TARGETS]);
  const providers = Object.entries(parts.proxyProviders).filter(([name, provider]) => {
    const dialer = dialerOf(fieldsOf(provider['override'])) ?? dialerOf(provider);
    if (dialer === undefined || known.has(dialer)) return true;
    note(`proxy-provider ${JSON.stringify(name)} is left out: its dialer-proxy ${JSON.stringify(dialer)} is not there`);
    return false;
  });
  return { ...parts, proxies, proxyProviders: Object.fromEntries(providers) };
}

function dialerOf(fields: Fields): string | undefined {
  const dialer = textOf(fields['dialer-proxy']);
  return dialer === '' ? undefined : dialer;
}

interface Chain {
  dialer: string;
  known: ReadonlySet<string>;
  dialers: ReadonlyMap<string, string | undefined>;
}

function problemOf(name: string, { dialer, known, dialers }: Chain): string | undefined {
  if (!known.has(dialer)) return `its dialer-proxy ${JSON.stringify(dialer)} is not there`;
  const seen = new Set([name]);
  for (let next: string | undefined = dialer; next !== undefined && next !== ''; next = dialers.get(next)) {
    if (seen.has(next)) return 'its chain of dialer-proxy leads back to itself';
    seen.add(next);
  }
  return undefined;
}

function leaveOut({ value, origin, own }: Sourced<Fields>, problem: string, note: Note): false {
  const message = `${origin}: node ${JSON.stringify(nameOf(value))}`;
  if (own) throw new ClashError(`${message}: ${problem}`);
  note(`${message} is left out: ${problem}`);
  return false;
}
