import type { ClashConfig } from '../../config/schema.ts';
import { ClashError, nameOf } from '../subscription/document.ts';
import { isFields, type Fields } from '../../io/untrusted.ts';

export type Edits = NonNullable<ClashConfig['override']['rules']>;
/** A value with the place where it was written: `clash.override.rules.prepend[0]`, `subscription
 *  airport, rules[3]`. */
export interface Sourced<T> {
  value: T;
  origin: string;
  /** Whether the user wrote the entry: errors in it are reported, and it is never dropped. */
  own: boolean;
  /** For a node: the subscription that it comes from. */
  subscription?: string;
}

/** Records a message for `clash status`. */
export type Note = (message: string) => void;

/** Edits a list of nodes or groups by name. The keys of an `override` replace those of the entry
 *  with the same name.
 *  @throws ClashError: an entry has no name, or an override names no entry */
export function editNamed(
  list: readonly Sourced<Fields>[],
  edits: Edits | undefined,
  place: { path: string; what: string; note: Note },
): Sourced<Fields>[] {
  if (edits === undefined) return [...list];
  const { path, what, note } = place;
  const given = (key: 'prepend' | 'append' | 'override') =>
    (edits[key] ?? []).map((value, index): Sourced<Fields> => {
      const origin = `${path}.${key}[${index}]`;
      if (!isFields(value) || nameOf(value) === '') throw new ClashError(`${origin}: expected a ${what} with a name`);
      return { value, origin, own: true };
    });
  let edited = [...list];
  for (const [index, value] of (edits.delete ?? []).entries()) {
    const name = isFields(value) ? nameOf(value) : String(value);
    const kept = edited.filter((entry) => nameOf(entry.value) !== name);
    if (kept.length === edited.length) note(`${path}.delete[${index}]: there is no ${what} ${JSON.stringify(name)} to delete`);
    edited = kept;
  }
  edited = [...given('prepend'), ...edited, ...given('append')];
  for (const { value, origin } of given('override')) {
    const name = nameOf(value);
    const at = edited.findIndex((entry) => nameOf(entry.value) === name);
    const found = edited[at];
    if (found === undefined)
      throw new ClashError(
        `${origin}: there is no ${what} ${JSON.stringify(name)}; there ${listNames(edited.map((entry) => nameOf(entry.value)))}`,
      );
    // If the user did not list the members, missing ones are the subscription's fault.
    const own = found.own || value['proxies'] !== undefined || value['use'] !== undefined;
    edited[at] = { ...found, value: { ...found.value, ...value }, origin, own };
  }
  return edited;
}

/** Edits rules, which are lines of text. `override` replaces all of them.
 *  @throws ClashError: a rule is not text */
export function editRules(
  list: readonly Sourced<string>[],
  edits: Edits | undefined,
  place: { path: string; note: Note },
): Sourced<string>[] {
  if (edits === undefined) return [...list];
  const { path, note } = place;
  const own = (key: 'prepend' | 'append' | 'override') =>
    (edits[key] ?? []).map((value, index): Sourced<string> => {
      const origin = `${path}.${key}[${index}]`;
      if (typeof value !== 'string') throw new ClashError(`${origin}: expected a rule such as DOMAIN-SUFFIX,example.com,DIRECT`);
      return { value, origin, own: true };
    });
  let edited = edits.override === undefined ? [...list] : own('override');
  for (const [index, value] of (edits.delete ?? []).entries()) {
    const kept = edited.filter((rule) => spaceless(rule.value) !== spaceless(String(value)));
    if (kept.length === edited.length) note(`${path}.delete[${index}]: there is no rule ${JSON.stringify(value)} to delete`);
    edited = kept;
  }
  return [...own('prepend'), ...edited, ...own('append')];
}

/** Merges `over` into `base`: maps key by key; any other value is replaced. */
export function mergeDeep(base: Fields, over: Fields): Fields {
  const merged: Fields = { ...base };
  for (const [key, value] of Object.entries(over)) {
    const below = Object.hasOwn(merged, key) ? merged[key] : undefined;
    const both = isFields(below) && isFields(value) ? mergeDeep(below, value) : value;
    Object.defineProperty(merged, key, { value: both, enumerable: true, writable: true, configurable: true }); // __proto__ is a key like any other
  }
  return merged;
}

const MAX_NAMES = 12;

/** For messages: `are A, B and 7 more`. */
export function listNames(names: readonly string[]): string {
  if (names.length === 0) return 'are none';
  const shown = names.slice(0, MAX_NAMES).join(', ');
  return names.length > MAX_NAMES ? `are ${shown} and ${names.length - MAX_NAMES} more` : `are ${shown}`;
}

function spaceless(rule: string): string {
  return rule.replace(/\s*,\s*/g, ',').trim();
}
