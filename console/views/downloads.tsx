import { formatBytes, formatDuration, formatRate, formatShare } from '../data/format.ts';
import { findDelays } from '../data/delays.ts';
import { live } from '../data/live.ts';
import type { ClashReport, Downloads as Snapshot, RunningDownload, UpstreamReport, Upstreams } from '../data/model.ts';
import { imageName } from '../data/problems.ts';
import { useQuery } from '../data/query.ts';
import { routeTo } from '../data/router.ts';
import { t } from '../language/language.ts';
import { Loaded, Missing } from '../parts/async.tsx';
import { Badge, Figure, Progress, Section } from '../parts/marks.tsx';
import { Digest, Foreign } from '../parts/names.tsx';
import { Table, type Column } from '../parts/table.tsx';
import { View } from '../parts/view.tsx';
import { JobList } from './jobs.tsx';

const REFRESH_MS = 10_000;

/** The running downloads, live. */
export function Downloads() {
  const first = useQuery<Snapshot>('/api/downloads');
  const upstreams = useQuery<Upstreams>('/api/upstreams', { everyMs: REFRESH_MS });
  const clash = useQuery<ClashReport>('/api/clash', { everyMs: REFRESH_MS });
  const snapshot = live.downloads.value ?? first.data;
  return (
    <View title={t('view.downloads')} lead={t('downloads.lead')}>
      <Loaded query={{ ...first, data: snapshot }}>
        {(data) => (
          <>
            <Missing unreachable={data.unreachable} />
            <Rates snapshot={data} />
            <p class="hidden-text" role="status">
              {t('downloads.count', { count: data.total })}
            </p>
            <Table
              caption={t('view.downloads')}
              columns={columns(data, { upstreams: upstreams.data?.upstreams ?? [], clash: clash.data })}
              rows={data.downloads}
              keyOf={({ replica, digest, repository }) => `${replica} ${repository} ${digest}`}
              empty={t('downloads.none')}
            />
            {data.total > data.downloads.length ? (
              <p class="muted">{t('downloads.more', { count: data.total - data.downloads.length })}</p>
            ) : null}
          </>
        )}
      </Loaded>
      <Section id="jobs" title={t('jobs.title')}>
        <JobList jobs={live.jobs.value?.jobs ?? []} />
      </Section>
    </View>
  );
}

function Rates({ snapshot: { bytesPerSecond, sentBytesPerSecond, requestsPerSecond, total } }: { snapshot: Snapshot }) {
  return (
    <dl class="figures">
      <Figure name={t('figure.downloads')} value={total} />
      <Figure name={t('downloads.received')} value={formatRate(bytesPerSecond)} />
      <Figure name={t('downloads.sent')} value={formatRate(sentBytesPerSecond)} />
      <Figure name={t('downloads.requests')} value={requestsPerSecond.toFixed(1)} />
    </dl>
  );
}

interface Surroundings {
  upstreams: readonly UpstreamReport[];
  clash: ClashReport | undefined;
}

function columns({ at }: Snapshot, surroundings: Surroundings): Column<RunningDownload>[] {
  return [
    {
      key: 'what',
      title: t('downloads.what'),
      isHeader: true,
      wide: true,
      cell: (row) => (
        <div class="stack">
          <a href={routeTo('images', { search: row.repository })}>
            <Foreign text={imageName(row)} />
          </a>
          <Way row={row} surroundings={surroundings} />
        </div>
      ),
    },
    { key: 'progress', title: t('downloads.progress'), cell: (row) => <HowFar row={row} /> },
    { key: 'rate', title: t('downloads.rate'), numeric: true, cell: ({ bytesPerSecond }) => formatRate(bytesPerSecond) },
    { key: 'source', title: t('downloads.source'), cell: ({ source }) => t(`source.${source}`) },
    { key: 'readers', title: t('downloads.readers'), numeric: true, cell: ({ readers }) => readers },
    {
      key: 'since',
      title: t('downloads.since'),
      numeric: true,
      cell: ({ startedAt }) => formatDuration(Date.parse(at) - Date.parse(startedAt)),
    },
    { key: 'digest', title: t('image.digest'), cell: ({ digest }) => <Digest digest={digest} /> },
  ];
}

function HowFar({ row }: { row: RunningDownload }) {
  const { receivedBytes, size } = row;
  const share = size === null || size === 0 ? undefined : receivedBytes / size;
  const text =
    size === null ? formatBytes(receivedBytes) : t('downloads.of', { received: formatBytes(receivedBytes), size: formatBytes(size) });
  return (
    <div class="stack how-far">
      <span>
        {text} {share === undefined ? null : <b>{formatShare(share)}</b>}
      </span>
      <Progress label={t('downloads.progressOf', { image: imageName(row) })} share={share} text={text} />
    </div>
  );
}

/** The factors that slow down a download from an upstream. */
function Way({ row, surroundings: { upstreams, clash } }: { row: RunningDownload; surroundings: Surroundings }) {
  if (row.source !== 'upstream') return null;
  const upstream = upstreams.find(({ name }) => name === row.upstream);
  const delays = findDelays({ upstream, clash, downloads: [] });
  return (
    <ul class="way">
      {delays.map(({ key, values, tone }) => (
        <li key={key}>{tone === 'bad' || tone === 'warning' ? <Badge tone={tone}>{t(key, values)}</Badge> : t(key, values)}</li>
      ))}
    </ul>
  );
}
