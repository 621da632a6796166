import { formatNumber } from '../data/format.ts';
import type { RateLimitReport } from '../data/model.ts';
import { t } from '../language/language.ts';
import { Table, type Column } from '../parts/table.tsx';
import { Ago } from '../parts/time.tsx';

/** The remaining pulls of each upstream, as last reported. */
export function Limits({ limits }: { limits: readonly RateLimitReport[] }) {
  return (
    <Table caption={t('overview.limits')} columns={columns()} rows={limits} keyOf={({ upstream }) => upstream} empty={t('limits.none')} />
  );
}

function columns(): Column<RateLimitReport>[] {
  return [
    { key: 'upstream', title: t('limits.upstream'), isHeader: true, wide: true, cell: ({ upstream }) => upstream },
    { key: 'remaining', title: t('limits.remaining'), numeric: true, cell: ({ remaining }) => formatNumber(remaining) },
    { key: 'at', title: t('limits.at'), cell: ({ at }) => <Ago at={at} /> },
  ];
}
