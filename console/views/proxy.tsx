import { act } from '../data/actions.ts';
import { formatBytes, formatMilliseconds, formatNumber, UNKNOWN } from '../data/format.ts';
import type { ClashReport } from '../data/model.ts';
import { useQuery } from '../data/query.ts';
import { t } from '../language/language.ts';
import { ActionButton } from '../parts/action-button.tsx';
import { Loaded } from '../parts/async.tsx';
import { Badge, Figure, Meter, Notice, Section } from '../parts/marks.tsx';
import { Foreign } from '../parts/names.tsx';
import { SortedTable, Table, type Column } from '../parts/table.tsx';
import { Ago, When } from '../parts/time.tsx';
import { View } from '../parts/view.tsx';
import { ReadOnly } from './warm.tsx';

type Node = ClashReport['nodes'][number];
type Subscription = ClashReport['subscriptions'][number];

const REFRESH_MS = 5000;

/** The clash proxy: its subscriptions and nodes, and the node in use. */
export function Proxy() {
  const query = useQuery<ClashReport>('/api/clash', { everyMs: REFRESH_MS });
  return (
    <View title={t('view.proxy')} lead={t('proxy.lead')}>
      <Loaded query={query}>
        {(clash) => (clash.enabled ? <Report clash={clash} reload={query.reload} /> : <p class="empty">{t('proxy.disabled')}</p>)}
      </Loaded>
    </View>
  );
}

function Report({ clash, reload }: { clash: ClashReport; reload: () => void }) {
  return (
    <>
      <State clash={clash} />
      <Chosen clash={clash} reload={reload} />
      <Section id="subscriptions" title={t('proxy.subscriptions')}>
        <Table
          caption={t('proxy.subscriptions')}
          columns={subscriptionColumns()}
          rows={clash.subscriptions}
          keyOf={({ name }) => name}
          empty={t('proxy.noSubscriptions')}
        />
      </Section>
      <Section id="nodes" title={t('proxy.nodes')} aside={t('proxy.nodeCount', { count: clash.nodes.length })}>
        <SortedTable
          caption={t('proxy.nodes')}
          columns={nodeColumns(clash, reload)}
          rows={clash.nodes}
          keyOf={({ name }) => name}
          empty={t('proxy.noNodes')}
          initial={{ key: 'delay', descending: false }}
        />
        <ReadOnly />
      </Section>
    </>
  );
}

function State({ clash: { running, problem, proven, notes } }: { clash: ClashReport }) {
  if (running && problem === null && proven && notes.length === 0) return null;
  return (
    <div class="stack">
      {running ? null : (
        <Notice tone="bad" title={t('problem.clash')}>
          {problem === null ? null : <p>{problem}</p>}
        </Notice>
      )}
      {running && problem !== null ? (
        <Notice tone="warning" title={t('problem.clashConfig')}>
          <p>
            <Foreign text={problem} />
          </p>
        </Notice>
      ) : null}
      {running && !proven ? <Notice tone="warning" title={t('proxy.unproven')} /> : null}
      {notes.length === 0 ? null : (
        <Notice tone="info" title={t('proxy.notes')}>
          <ul class="plain">
            {notes.map((note) => (
              <li key={note}>
                <Foreign text={note} />
              </li>
            ))}
          </ul>
        </Notice>
      )}
    </div>
  );
}

function Chosen({ clash: { chosen, preferred, nodes, traffic, version, restarts }, reload }: { clash: ClashReport; reload: () => void }) {
  const node = nodes.find(({ name }) => name === chosen);
  return (
    <div class="stack">
      <dl class="figures">
        <Figure
          name={t('figure.node')}
          value={
            <span class="figure-name">
              <Foreign text={chosen ?? t('proxy.none')} />
            </span>
          }
          note={t(preferred === null ? 'proxy.automatic' : 'proxy.byHand')}
        />
        <Figure name={t('proxy.delay')} value={node?.delayMs == null ? UNKNOWN : formatMilliseconds(node.delayMs)} />
        <Figure
          name={t('proxy.downloaded')}
          value={formatBytes(traffic.downloadedBytes)}
          note={t('proxy.uploaded', { bytes: formatBytes(traffic.uploadedBytes) })}
        />
        <Figure
          name={t('proxy.connections')}
          value={formatNumber(traffic.connections)}
          note={`mihomo ${version ?? UNKNOWN} · ${t('proxy.restarts', { count: restarts })}`}
        />
      </dl>
      {preferred === null ? null : (
        <p>
          <ActionButton onClick={() => choose(null, reload)}>{t('proxy.chooseAutomatic')}</ActionButton>
        </p>
      )}
    </div>
  );
}

function choose(node: string | null, reload: () => void): void {
  act<ClashReport>({
    path: '/api/actions/choose-node',
    body: { node },
    done: () => (node === null ? { key: 'proxy.nowAutomatic' } : { key: 'proxy.nowChosen', values: { node } }),
    after: reload,
  });
}

function subscriptionColumns(): Column<Subscription>[] {
  return [
    {
      key: 'name',
      title: t('proxy.subscription'),
      isHeader: true,
      wide: true,
      cell: ({ name, problem }) => (
        <>
          <Foreign text={name} />
          {problem === null ? null : (
            <div class="plain-weight">
              <Badge tone="warning">{t('proxy.problem')}</Badge> <Foreign text={problem} />
            </div>
          )}
        </>
      ),
    },
    { key: 'nodes', title: t('proxy.nodes'), numeric: true, cell: ({ nodes }) => formatNumber(nodes) },
    { key: 'left', title: t('proxy.left'), cell: (row) => <TrafficLeft row={row} /> },
    { key: 'expires', title: t('proxy.expires'), cell: ({ expires }) => <When at={expires} /> },
    { key: 'fetched', title: t('proxy.fetched'), cell: ({ fetchedAt }) => <Ago at={fetchedAt} /> },
  ];
}

function TrafficLeft({ row: { name, usedBytes, leftBytes } }: { row: Subscription }) {
  if (leftBytes === null) return <>{usedBytes === null ? UNKNOWN : t('proxy.used', { bytes: formatBytes(usedBytes) })}</>;
  const total = leftBytes + (usedBytes ?? 0);
  const share = total === 0 ? 0 : leftBytes / total;
  const text = t('proxy.leftOf', { left: formatBytes(leftBytes), total: formatBytes(total) });
  return (
    <div class="stack">
      <span>{text}</span>
      <Meter label={t('proxy.leftLabel', { subscription: name })} share={share} text={text} tone={share < 0.1 ? 'bad' : 'good'} />
    </div>
  );
}

function nodeColumns({ chosen, preferred }: ClashReport, reload: () => void): Column<Node>[] {
  return [
    {
      key: 'name',
      title: t('proxy.node'),
      isHeader: true,
      wide: true,
      value: ({ name }) => name,
      cell: ({ name }) => (
        <>
          <Foreign text={name} />
          {name === chosen ? (
            <span class="badges">
              <Badge tone="good">{t('proxy.inUse')}</Badge>
            </span>
          ) : null}
        </>
      ),
    },
    { key: 'type', title: t('proxy.type'), value: ({ type }) => type, cell: ({ type }) => <Foreign text={type} /> },
    {
      key: 'subscription',
      title: t('proxy.subscription'),
      value: ({ subscription }) => subscription ?? '',
      cell: ({ subscription }) => <Foreign text={subscription ?? UNKNOWN} />,
    },
    {
      key: 'delay',
      title: t('proxy.delay'),
      numeric: true,
      value: ({ delayMs }) => delayMs ?? undefined,
      cell: (node) => <Delay node={node} />,
    },
    {
      key: 'choose',
      title: t('image.actions'),
      cell: ({ name }) => (
        <ActionButton kind="small" disabled={name === preferred} onClick={() => choose(name, reload)}>
          {t('proxy.choose')}
          <span class="hidden-text"> {name}</span>
        </ActionButton>
      ),
    },
  ];
}

function Delay({ node: { alive, delayMs } }: { node: Node }) {
  if (alive === null) return <span class="muted">{t('proxy.untested')}</span>;
  if (!alive || delayMs === null) return <Badge tone="bad">{t('proxy.dead')}</Badge>;
  return <>{formatMilliseconds(delayMs)}</>;
}
