import { signal } from '@preact/signals';

/** A message about the last action, visible and for screen readers. */
export interface Message {
  tone: 'good' | 'bad' | 'info';
  text: string;
}

const SHOWN_MS = 12_000;

const shown = signal<Message | undefined>(undefined);
let timer: ReturnType<typeof setTimeout> | undefined;

/** Shows a message at the lower edge of the page for a while, and announces it to screen
 *  readers. */
export function announce(message: Message): void {
  clearTimeout(timer);
  shown.value = message;
  timer = setTimeout(() => (shown.value = undefined), SHOWN_MS);
}

export function Announcements() {
  const message = shown.value;
  return (
    <div class="announcements" role="status" aria-live="polite">
      {message === undefined ? null : <p class={`announcement ${message.tone}`}>{message.text}</p>}
    </div>
  );
}
