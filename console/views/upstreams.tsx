import { isSlowAnswer, proxyName } from '../data/delays.ts';
import { formatBytes, formatMilliseconds, formatNumber, formatRate, UNKNOWN } from '../data/format.ts';
import { live } from '../data/live.ts';
import type { ClashReport, UpstreamReport, Upstreams } from '../data/model.ts';
import { useQuery } from '../data/query.ts';
import { routeTo } from '../data/router.ts';
import { t, textOf } from '../language/language.ts';
import { Loaded, Missing } from '../parts/async.tsx';
import { Badge, Section, type Tone } from '../parts/marks.tsx';
import { SortedTable, type Column } from '../parts/table.tsx';
import { Ago } from '../parts/time.tsx';
import { View } from '../parts/view.tsx';
import { Limits } from './limits.tsx';

const REFRESH_MS = 5000;

const TONES: Record<UpstreamReport['state'], Tone> = {
  up: 'good',
  limited: 'bad',
  refusing: 'warning',
  'proxy-down': 'bad',
  down: 'bad',
  unknown: 'neutral',
};

/** The upstreams: which ones answer, how fast, and through which proxy or mirror. */
export function UpstreamsPage() {
  const query = useQuery<Upstreams>('/api/upstreams', { everyMs: REFRESH_MS });
  const clash = useQuery<ClashReport>('/api/clash').data;
  return (
    <View title={t('view.upstreams')} lead={t('upstreams.lead')}>
      <Loaded query={query}>
        {({ upstreams, unreachable }) => (
          <>
            <Missing unreachable={unreachable} />
            <SortedTable
              caption={t('view.upstreams')}
              columns={columns(clash)}
              rows={upstreams}
              keyOf={({ name }) => name}
              empty={t('upstreams.none')}
              initial={{ key: 'requests', descending: true }}
            />
            <Section id="limits" title={t('overview.limits')}>
              <Limits limits={upstreams.map(({ name, rateLimit }) => rateLimit ?? { upstream: name })} />
            </Section>
          </>
        )}
      </Loaded>
    </View>
  );
}

function columns(clash: ClashReport | undefined): Column<UpstreamReport>[] {
  return [
    {
      key: 'name',
      title: t('limits.upstream'),
      isHeader: true,
      wide: true,
      value: ({ name }) => name,
      cell: (row) => <Name row={row} clash={clash} />,
    },
    { key: 'state', title: t('upstreams.state'), value: ({ state }) => state, cell: (row) => <State row={row} /> },
    {
      key: 'latency',
      title: t('upstreams.latency'),
      numeric: true,
      value: ({ latency }) => latency?.p50,
      cell: ({ latency }) => (latency === null ? UNKNOWN : <Latency latency={latency} />),
    },
    {
      key: 'requests',
      title: t('upstreams.hour'),
      numeric: true,
      value: ({ hour }) => hour.requests,
      cell: ({ hour }) => (
        <>
          {t('upstreams.requests', { count: hour.requests })}
          <div class="muted">{formatBytes(hour.bytes)}</div>
        </>
      ),
    },
    {
      key: 'failures',
      title: t('upstreams.failures'),
      numeric: true,
      value: ({ hour }) => hour.failures,
      cell: ({ hour }) => formatNumber(hour.failures),
    },
    { key: 'way', title: t('upstreams.way'), cell: (row) => <Way row={row} clash={clash} /> },
  ];
}

interface CellProps {
  row: UpstreamReport;
  clash: ClashReport | undefined;
}

function Name({ row: { name, url, hosts, mirrors }, clash }: CellProps) {
  return (
    <>
      {name}
      <div class="muted plain-weight">
        {url}
        {hosts.length === 0 ? null : ` · ${hosts.join(', ')}`}
      </div>
      {mirrors.length === 0 ? null : (
        <ul class="plain muted plain-weight">
          {mirrors.map((mirror) => (
            <li key={mirror.url}>
              {t('upstreams.mirror')} {mirror.url} ({wayOf(mirror.proxy, clash)})
            </li>
          ))}
        </ul>
      )}
    </>
  );
}

function State({ row: { name, state, latency, lastRequestAt, lastFailure } }: { row: UpstreamReport }) {
  return (
    <>
      {state === 'up' && isSlowAnswer(latency) ? (
        <Badge tone="warning">{t('upstreams.state.slow')}</Badge>
      ) : (
        <Badge tone={TONES[state]}>{t(`upstreams.state.${state}`)}</Badge>
      )}
      <LastUse name={name} lastRequestAt={lastRequestAt} />
      {lastFailure === null ? null : (
        <div class="muted">
          {t('upstreams.failed', { outcome: textOf(`outcome.${lastFailure.outcome}`) ?? lastFailure.outcome })} <Ago at={lastFailure.at} />
        </div>
      )}
    </>
  );
}

/** Shows the running downloads if there are any, else the time of the last request: a single
 *  response may take hours to arrive. */
function LastUse({ name, lastRequestAt }: Pick<UpstreamReport, 'name' | 'lastRequestAt'>) {
  const running = (live.downloads.value?.downloads ?? []).filter((own) => own.upstream === name && own.source === 'upstream');
  if (running.length > 0) {
    const rate = formatRate(running.reduce((sum, { bytesPerSecond }) => sum + bytesPerSecond, 0));
    return (
      <div class="muted">
        <a href={routeTo('downloads')}>{t('downloads.count', { count: running.length })}</a>, {rate}
      </div>
    );
  }
  if (lastRequestAt === null) return null;
  return (
    <div class="muted">
      {t('upstreams.asked')} <Ago at={lastRequestAt} />
    </div>
  );
}

function Latency({ latency: { p50, p95 } }: { latency: NonNullable<UpstreamReport['latency']> }) {
  return (
    <>
      {formatMilliseconds(p50)}
      <div class="muted wrapping">{t('upstreams.p95', { time: formatMilliseconds(p95) })}</div>
    </>
  );
}

function Way({ row: { proxy, onProxyFailure }, clash }: CellProps) {
  return (
    <>
      {wayOf(proxy, clash)}
      {proxy === 'direct' ? null : <div class="muted">{t(`upstreams.fallback.${onProxyFailure}`)}</div>}
    </>
  );
}

function wayOf(proxy: string, clash: ClashReport | undefined): string {
  return proxy === 'direct' ? t('upstreams.direct') : t('upstreams.through', { proxy: proxyName(proxy, clash) });
}
