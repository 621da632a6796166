import { formatBytes, formatNumber, UNKNOWN } from '../data/format.ts';
import type { Replicas } from '../data/model.ts';
import { t } from '../language/language.ts';
import { Badge } from '../parts/marks.tsx';
import { Table, type Column } from '../parts/table.tsx';
import { Ago } from '../parts/time.tsx';

type Replica = Replicas['replicas'][number];

export function ReplicaTable({ replicas }: { replicas: readonly Replica[] }) {
  return (
    <Table
      caption={t('overview.replicas')}
      columns={columns()}
      rows={replicas}
      keyOf={({ address }) => address}
      empty={t('replicas.none')}
    />
  );
}

function columns(): Column<Replica>[] {
  return [
    {
      key: 'address',
      title: t('replicas.address'),
      isHeader: true,
      wide: true,
      cell: ({ address, self }) => (
        <>
          <code>{address}</code> {self ? <span class="muted">({t('replicas.self')})</span> : null}
        </>
      ),
    },
    {
      key: 'state',
      title: t('replicas.state'),
      cell: ({ reachable, problem }) => (
        <>
          <Badge tone={reachable ? 'good' : 'bad'}>{t(reachable ? 'state.answers' : 'state.silent')}</Badge>
          {problem === null ? null : <p class="muted">{problem}</p>}
        </>
      ),
    },
    {
      key: 'downloads',
      title: t('replicas.downloads'),
      numeric: true,
      cell: ({ runningDownloads }) => (runningDownloads === null ? UNKNOWN : formatNumber(runningDownloads)),
    },
    {
      key: 'memory',
      title: t('replicas.memory'),
      numeric: true,
      cell: ({ memoryBytes }) => (memoryBytes === null ? UNKNOWN : formatBytes(memoryBytes)),
    },
    { key: 'version', title: t('replicas.version'), cell: ({ version }) => version ?? UNKNOWN },
    { key: 'started', title: t('replicas.started'), cell: ({ startedAt }) => <Ago at={startedAt} /> },
  ];
}
