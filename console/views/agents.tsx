import { formatBytes, formatNumber } from '../data/format.ts';
import type { AgentsReport } from '../data/model.ts';
import { useQuery } from '../data/query.ts';
import { t } from '../language/language.ts';
import { Loaded, Missing } from '../parts/async.tsx';
import { Badge, Notice, type Tone } from '../parts/marks.tsx';
import { SortedTable, type Column } from '../parts/table.tsx';
import { Ago } from '../parts/time.tsx';
import { View } from '../parts/view.tsx';

type Node = AgentsReport['nodes'][number];

const REFRESH_MS = 10_000;
const TONES: Record<Node['agent'], Tone> = { ready: 'good', 'not-ready': 'bad', unknown: 'neutral' };

/** The nodes and their agents. */
export function Agents() {
  const query = useQuery<AgentsReport>('/api/agents', { everyMs: REFRESH_MS });
  return (
    <View title={t('view.agents')} lead={t('agents.lead')}>
      <Loaded query={query}>
        {({ nodes, problem, unreachable }) => (
          <div class="stack">
            <Missing unreachable={unreachable} />
            {problem === null ? null : (
              <Notice tone="warning" title={t('agents.problem')}>
                <p>{problem}</p>
              </Notice>
            )}
            <SortedTable
              caption={t('view.agents')}
              columns={columns()}
              rows={nodes}
              keyOf={({ address, node }) => `${node} ${address}`}
              empty={t('agents.none')}
              initial={{ key: 'bytes', descending: true }}
            />
          </div>
        )}
      </Loaded>
    </View>
  );
}

function columns(): Column<Node>[] {
  return [
    {
      key: 'node',
      title: t('pod.node'),
      isHeader: true,
      wide: true,
      value: ({ node }) => node,
      cell: ({ node, address }) => (
        <>
          {node}
          {address === node ? null : <div class="muted plain-weight">{address}</div>}
        </>
      ),
    },
    {
      key: 'agent',
      title: t('agents.agent'),
      value: ({ agent }) => agent,
      cell: ({ agent }) => <Badge tone={TONES[agent]}>{t(`agents.${agent}`)}</Badge>,
    },
    {
      key: 'pulls',
      title: t('agents.pulls'),
      numeric: true,
      value: ({ hour }) => hour.pulls,
      cell: ({ hour }) => formatNumber(hour.pulls),
    },
    { key: 'bytes', title: t('agents.bytes'), numeric: true, value: ({ hour }) => hour.bytes, cell: ({ hour }) => formatBytes(hour.bytes) },
    {
      key: 'errors',
      title: t('agents.errors'),
      numeric: true,
      value: ({ hour }) => hour.errors,
      cell: ({ hour }) => formatNumber(hour.errors),
    },
    { key: 'seen', title: t('agents.seen'), value: ({ lastSeen }) => lastSeen ?? undefined, cell: ({ lastSeen }) => <Ago at={lastSeen} /> },
  ];
}
