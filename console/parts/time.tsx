import { now } from '../data/clock.ts';
import { formatAbsolute, formatMoment, formatRelative, UNKNOWN } from '../data/format.ts';

type Moment = string | number | undefined | null;

function timeOf(at: Moment): number | undefined {
  const time = typeof at === 'string' ? Date.parse(at) : (at ?? undefined);
  return time === undefined || Number.isNaN(time) ? undefined : time;
}

/** `5 minutes ago`, with the full time as the title. */
export function Ago({ at }: { at: Moment }) {
  const time = timeOf(at);
  if (time === undefined) return <>{UNKNOWN}</>;
  return (
    <time dateTime={new Date(time).toISOString()} title={formatAbsolute(time)}>
      {formatRelative(time, now.value)}
    </time>
  );
}

/** `14:03:20 · 5 minutes ago`. */
export function When({ at }: { at: Moment }) {
  const time = timeOf(at);
  if (time === undefined) return <>{UNKNOWN}</>;
  return (
    <time dateTime={new Date(time).toISOString()} title={formatAbsolute(time)}>
      {formatMoment(time, now.value)} <span class="muted">· {formatRelative(time, now.value)}</span>
    </time>
  );
}
