import { apiPath } from '../data/api.ts';
import { formatNumber } from '../data/format.ts';
import type { WebhookReport } from '../data/model.ts';
import { useQuery } from '../data/query.ts';
import { route, setParameters } from '../data/router.ts';
import { t, textOf } from '../language/language.ts';
import { Loaded } from '../parts/async.tsx';
import { SearchBox, Segments } from '../parts/fields.tsx';
import { Badge, Meter, Notice, Section } from '../parts/marks.tsx';
import { Foreign } from '../parts/names.tsx';
import { Pager } from '../parts/pager.tsx';
import { Table, type Column } from '../parts/table.tsx';
import { Ago } from '../parts/time.tsx';
import { View } from '../parts/view.tsx';

type Line = WebhookReport['images'][number];
type Reason = WebhookReport['reasons'][number];

const PAGE_SIZE = 100;
const REFRESH_MS = 15_000;
const CHOICES = ['no', 'yes', 'all'] as const;

/** The images of pods that are not rewritten, and why. */
export function Webhook() {
  const { parameters } = route.value;
  const offset = Number(parameters.get('offset') ?? 0);
  const rewritten = CHOICES.find((choice) => choice === parameters.get('rewritten')) ?? 'no';
  const search = parameters.get('search') ?? '';
  const query = useQuery<WebhookReport>(apiPath('/api/webhook', { search, rewritten, offset, limit: PAGE_SIZE }), { everyMs: REFRESH_MS });
  return (
    <View title={t('view.webhook')} lead={t('webhook.lead')}>
      <Loaded query={query}>
        {(report) => (
          <>
            <Remarks report={report} />
            {isKnown(report) ? <Pods report={report} search={search} rewritten={rewritten} offset={offset} busy={query.loading} /> : null}
            <Instances report={report} />
          </>
        )}
      </Loaded>
    </View>
  );
}

interface PodsProps {
  report: WebhookReport;
  search: string;
  rewritten: (typeof CHOICES)[number];
  offset: number;
  busy: boolean;
}

function Pods({ report, search, rewritten, offset, busy }: PodsProps) {
  return (
    <>
      <Section id="pods" title={t('webhook.images')} aside={<Taken report={report} />}>
        <div class="row" role="search">
          <SearchBox label={t('webhook.search')} value={search} change={(value) => setParameters({ search: value, offset: undefined })} />
          <Segments
            label={t('webhook.show')}
            value={rewritten}
            choices={CHOICES.map((value) => ({ value, text: t(`webhook.show.${value}`) }))}
            change={(value) => setParameters({ rewritten: value, offset: undefined })}
          />
        </div>
        <Table
          caption={t('webhook.images')}
          columns={columns()}
          rows={report.images}
          keyOf={({ namespace, pod, container }) => `${namespace}/${pod}/${container}`}
          empty={t(report.problem === null ? 'webhook.none' : 'webhook.unknown')}
          busy={busy}
        />
        <Pager
          offset={offset}
          limit={PAGE_SIZE}
          total={report.total}
          go={(next) => setParameters({ offset: next === 0 ? undefined : String(next) })}
        />
      </Section>
      <Section id="reasons" title={t('webhook.reasons')}>
        <Reasons reasons={report.reasons} />
      </Section>
    </>
  );
}

/** False: the pods are not known, and the notices say why. */
function isKnown({ problem, takenAt }: WebhookReport): boolean {
  return problem === null || takenAt !== null;
}

function Remarks({ report: { enabled, problem } }: { report: WebhookReport }) {
  return (
    <>
      {enabled ? null : <Notice tone="info" title={t('webhook.disabled')} />}
      {problem === null ? null : (
        <Notice tone="warning" title={t('webhook.noPods')}>
          <p>{problem}</p>
        </Notice>
      )}
    </>
  );
}

function Taken({ report: { takenAt } }: { report: WebhookReport }) {
  return takenAt === null ? null : (
    <>
      {t('images.takenAt')} <Ago at={takenAt} />
    </>
  );
}

/** Translated, if the reason is known. */
function reasonText({ reason, text }: { reason: string; text: string }): string {
  return textOf(`reason.${reason}`) ?? text;
}

/** The reason, and what to do about it. */
function Why({ row }: { row: { reason: string; text: string } }) {
  const todo = textOf(`todo.${row.reason}`);
  return (
    <>
      {reasonText(row)}
      {todo === undefined ? null : <div class="muted plain-weight">{todo}</div>}
    </>
  );
}

function Reasons({ reasons }: { reasons: readonly Reason[] }) {
  const all = reasons.reduce((sum, { images }) => sum + images, 0);
  const columns: Column<Reason>[] = [
    {
      key: 'reason',
      title: t('webhook.reason'),
      isHeader: true,
      wide: true,
      cell: (row) => (
        <div class="stack">
          <div>
            <Why row={row} />
          </div>
          <Meter
            label={reasonText(row)}
            share={row.images / all}
            text={formatNumber(row.images)}
            tone={row.reason === 'rewritten' ? 'good' : 'neutral'}
          />
        </div>
      ),
    },
    { key: 'images', title: t('webhook.count'), numeric: true, cell: ({ images }) => formatNumber(images) },
  ];
  return (
    <Table caption={t('webhook.reasons')} columns={columns} rows={reasons} keyOf={({ reason }) => reason} empty={t('webhook.unknown')} />
  );
}

function columns(): Column<Line>[] {
  return [
    {
      key: 'pod',
      title: t('pod.pod'),
      isHeader: true,
      cell: ({ namespace, pod, container }) => (
        <>
          {pod}
          <div class="muted plain-weight">
            {namespace} · {container}
          </div>
        </>
      ),
    },
    {
      key: 'image',
      title: t('webhook.image'),
      wide: true,
      cell: ({ image, original }) => (
        <div>
          <Foreign text={original ?? image} />
          {original === null ? null : (
            <div class="muted">
              → <Foreign text={image} />
            </div>
          )}
        </div>
      ),
    },
    {
      key: 'reason',
      title: t('webhook.why'),
      cell: (line) => (line.reason === 'rewritten' ? <Badge tone="good">{t('reason.rewritten')}</Badge> : <Why row={line} />),
    },
  ];
}

function Instances({ report: { enabled, instances, reviews } }: { report: WebhookReport }) {
  if (!enabled) return null;
  const columns: Column<WebhookReport['instances'][number]>[] = [
    { key: 'address', title: t('replicas.address'), isHeader: true, wide: true, cell: ({ address }) => <code>{address}</code> },
    {
      key: 'state',
      title: t('replicas.state'),
      cell: ({ ready, problem }) => (
        <>
          <Badge tone={ready ? 'good' : 'bad'}>{t(ready ? 'state.ready' : 'state.notReady')}</Badge>
          {problem === null ? null : <div class="muted">{problem}</div>}
        </>
      ),
    },
  ];
  return (
    <Section
      id="instances"
      title={t('webhook.instances')}
      aside={reviews.map(({ outcome, count }) => `${textOf(`review.${outcome}`) ?? outcome}: ${formatNumber(count)}`).join(' · ')}
    >
      <Table
        caption={t('webhook.instances')}
        columns={columns}
        rows={instances}
        keyOf={({ address }) => address}
        empty={t('webhook.noInstances')}
      />
    </Section>
  );
}
