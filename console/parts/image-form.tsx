import type { ComponentChildren } from 'preact';
import { t } from '../language/language.ts';

interface ImageFormProps {
  /** The label of the field. */
  id: string;
  label: string;
  value: string;
  onInput: (value: string) => void;
  onSubmit: () => void;
  /** It submits the form. */
  button: ComponentChildren;
}

/** A form with one field, for the name of an image. */
export function ImageForm({ id, label, value, onInput, onSubmit, button }: ImageFormProps) {
  return (
    <form
      class="row"
      onSubmit={(event) => {
        event.preventDefault();
        onSubmit();
      }}
    >
      <label class="search plain" for={id}>
        <span class="hidden-text">{label}</span>
        <input
          id={id}
          type="text"
          placeholder={t('check.placeholder')}
          value={value}
          spellcheck={false}
          autocomplete="off"
          autocapitalize="off"
          onInput={({ currentTarget }) => onInput(currentTarget.value)}
        />
      </label>
      {button}
    </form>
  );
}
