import type { ComponentChildren } from 'preact';
import { Icon, type IconName } from './icon.tsx';

/** The severity of a state. Never shown by colour alone. */
export type Tone = 'good' | 'warning' | 'bad' | 'info' | 'neutral';

const ICONS: Record<Tone, IconName> = { good: 'ok', warning: 'warning', bad: 'error', info: 'info', neutral: 'unknown' };

/** A one-word state. */
export function Badge({ tone, children, title }: { tone: Tone; children: ComponentChildren; title?: string | undefined }) {
  return (
    <span class={`badge ${tone}`} title={title}>
      <Icon name={ICONS[tone]} />
      {children}
    </span>
  );
}

/** A short message about a problem. */
export function Notice({ tone, title, children }: { tone: Tone; title?: ComponentChildren; children?: ComponentChildren }) {
  return (
    <div class={`notice ${tone}`}>
      <Icon name={ICONS[tone]} />
      <div>
        {title === undefined ? null : <p class="notice-title">{title}</p>}
        {children}
      </div>
    </div>
  );
}

/** A share of a whole, as a bar. `share`: from 0 to 1. */
export function Meter({ label, share, text, tone = 'neutral' }: { label: string; share: number; text: string; tone?: Tone }) {
  const percent = Math.round(Math.min(1, Math.max(0, share)) * 100);
  return (
    <div
      class={`meter ${tone}`}
      role="meter"
      aria-label={label}
      aria-valuenow={percent}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuetext={text}
    >
      <div class="meter-fill" style={{ width: `${percent}%` }} />
    </div>
  );
}

/** Progress. Undefined: the total is unknown. */
export function Progress({ label, share, text }: { label: string; share: number | undefined; text: string }) {
  const percent = share === undefined ? undefined : Math.round(Math.min(1, Math.max(0, share)) * 100);
  return (
    <div
      class={`meter progress ${percent === undefined ? 'endless' : ''}`}
      role="progressbar"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={percent}
      aria-valuetext={text}
    >
      <div class="meter-fill" style={{ width: percent === undefined ? '30%' : `${percent}%` }} />
    </div>
  );
}

/** A figure with a label. */
export function Figure({ name, value, note }: { name: string; value: ComponentChildren; note?: ComponentChildren }) {
  return (
    <div class="figure">
      <dt>{name}</dt>
      <dd>
        <span class="figure-value">{value}</span>
        {note === undefined ? null : <span class="figure-note">{note}</span>}
      </dd>
    </div>
  );
}

/** A part of a view, with its heading. */
export function Section({
  title,
  aside,
  children,
  id,
}: {
  title: string;
  aside?: ComponentChildren;
  children: ComponentChildren;
  id: string;
}) {
  return (
    <section class="section" aria-labelledby={id}>
      <header class="section-head">
        <h2 id={id}>{title}</h2>
        {aside === undefined ? null : <div class="section-aside">{aside}</div>}
      </header>
      {children}
    </section>
  );
}
