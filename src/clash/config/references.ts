import type { ClashConfig } from '../../config/schema.ts';
import type { Fields } from '../../io/untrusted.ts';
import { ClashError, nameOf, namesOf, omit } from '../subscription/document.ts';
import { listNames, type Note, type Sourced } from './override.ts';
import { MAIN_GROUP } from './parts.ts';
import { healthCheck } from './providers.ts';
import { parseRule } from './rules.ts';

interface GroupContext {
  targets: ReadonlySet<string>;
  providers: readonly string[];
  own: ClashConfig;
  note: Note;
}

/** Removes members that do not exist from a group, sets its health check, and makes an empty
 *  group refuse traffic: by default mihomo lets an empty group's traffic out directly.
 *  @throws ClashError: the user's own group has a member that does not exist */
export function completeGroup(group: Sourced<Fields>, { targets, providers, own, note }: GroupContext): Fields {
  const { value, origin } = group;
  const only = (key: 'proxies' | 'use', known: (name: string) => boolean, what: string): string[] =>
    namesOf(value[key]).filter((name) => {
      if (known(name)) return true;
      const message = `${origin}: the group ${JSON.stringify(nameOf(value))} names the ${what} ${JSON.stringify(name)}, which does not exist`;
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

/** @returns whether the rule refers to existing names only
 *  @throws ClashError: it does not, and the user wrote it */
export function checkRule({ value, origin, own }: Sourced<string>, known: Known, note: Note): boolean {
  const rule = parseRule(value);
  const wrong = rule === undefined || rule.target === '' ? 'is not a rule' : unknownIn(rule, known);
  if (wrong === undefined) return true;
  const message = `${origin}: ${JSON.stringify(value.slice(0, 200))} ${wrong}`;
  if (own) throw new ClashError(message);
  note(`${message.replace(/; there are .*$/, '')}; it is left out`);
  return false;
}

function unknownIn({ type, payload, target }: NonNullable<ReturnType<typeof parseRule>>, known: Known): string | undefined {
  if (type === 'RULE-SET' && !known.ruleProviders.has(payload)) {
    return `names the rule-provider ${JSON.stringify(payload)}, which does not exist; there ${listNames([...known.ruleProviders])}`;
  }
  if (type === 'SUB-RULE') {
    return known.subRules.has(target)
      ? undefined
      : `names the sub-rules ${JSON.stringify(target)}, which do not exist; there ${listNames([...known.subRules])}`;
  }
  if (known.targets.has(target)) return undefined;
  return `names ${JSON.stringify(target)}, and there is no group or node of that name; there ${listNames([...known.targets])}`;
}
