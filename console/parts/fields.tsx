import { useEffect, useState } from 'preact/hooks';
import type { ComponentChildren } from 'preact';
import { Icon } from './icon.tsx';

const TYPING_MS = 250;

/** A search box that reports its text when the user stops typing. */
export function SearchBox({ label, value, change }: { label: string; value: string; change: (value: string) => void }) {
  const [typed, setTyped] = useState(value);
  useEffect(() => setTyped(value), [value]);
  useEffect(() => {
    if (typed === value) return undefined;
    const timer = setTimeout(() => change(typed), TYPING_MS);
    return () => clearTimeout(timer);
  }, [typed]);
  return (
    <div class="search">
      <Icon name="search" />
      <input
        type="search"
        aria-label={label}
        placeholder={label}
        value={typed}
        spellcheck={false}
        autocomplete="off"
        onInput={({ currentTarget }) => setTyped(currentTarget.value)}
      />
    </div>
  );
}

export interface Choice<Value extends string> {
  value: Value;
  text: string;
}

export interface SelectProps<Value extends string> {
  label: string;
  value: Value;
  choices: readonly Choice<Value>[];
  change: (value: Value) => void;
  icon?: ComponentChildren;
}

export function Select<Value extends string>({ label, value, choices, change, icon }: SelectProps<Value>) {
  return (
    <label class="choice">
      {icon}
      <span class="hidden-text">{label}</span>
      <select value={value} onChange={({ currentTarget }) => change(currentTarget.value as Value)}>
        {choices.map((choice) => (
          <option key={choice.value} value={choice.value}>
            {choice.text}
          </option>
        ))}
      </select>
    </label>
  );
}

/** A choice between a few visible options. */
export function Segments<Value extends string>({ label, value, choices, change }: Omit<SelectProps<Value>, 'icon'>) {
  return (
    <div class="segments" role="group" aria-label={label}>
      {choices.map((choice) => (
        <button key={choice.value} type="button" aria-pressed={choice.value === value} onClick={() => change(choice.value)}>
          {choice.text}
        </button>
      ))}
    </div>
  );
}
