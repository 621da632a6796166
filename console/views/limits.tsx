import { formatDuration, formatNumber } from '../data/format.ts';
import type { RateLimitReport } from '../data/model.ts';
import { t } from '../language/language.ts';
import { Meter } from '../parts/marks.tsx';
import { Table, type Column } from '../parts/table.tsx';
import { Ago } from '../parts/time.tsx';

/** Undefined fields: the upstream has not reported a limit. */
type Limit = Pick<RateLimitReport, 'upstream'> & Partial<RateLimitReport>;

/** The remaining pulls of each upstream, as last reported. */
export function Limits({ limits }: { limits: readonly Limit[] }) {
  return (
    <Table caption={t('overview.limits')} columns={columns()} rows={limits} keyOf={({ upstream }) => upstream} empty={t('limits.none')} />
  );
}

function columns(): Column<Limit>[] {
  return [
    { key: 'upstream', title: t('limits.upstream'), isHeader: true, wide: true, cell: ({ upstream }) => upstream },
    { key: 'remaining', title: t('limits.remaining'), numeric: true, cell: (row) => <Remaining row={row} /> },
    { key: 'at', title: t('limits.at'), cell: ({ at }) => <Ago at={at} /> },
  ];
}

/** Below this share of the limit, few pulls are left. */
const FEW = 0.1;

function Remaining({ row: { upstream, remaining, limit, windowSeconds } }: { row: Limit }) {
  if (remaining === undefined) return <span class="muted">{t('limits.notReported')}</span>;
  if (limit == null || limit === 0) return <>{formatNumber(remaining)}</>;
  const text = t('limits.of', { remaining, limit });
  return (
    <div class="stack how-far">
      {text}
      <Meter
        label={t('limits.label', { upstream })}
        share={remaining / limit}
        text={text}
        tone={remaining / limit < FEW ? 'warning' : 'neutral'}
      />
      {windowSeconds == null ? null : (
        <span class="muted small">{t('limits.window', { duration: formatDuration(windowSeconds * 1000) })}</span>
      )}
    </div>
  );
}
