import { apiPath } from '../data/api.ts';
import { formatBytes, formatNumber, UNKNOWN } from '../data/format.ts';
import type { ImageRow, Images } from '../data/model.ts';
import { useQuery, type Query } from '../data/query.ts';
import { route, setParameters } from '../data/router.ts';
import { t } from '../language/language.ts';
import { Loaded } from '../parts/async.tsx';
import { SearchBox, Select } from '../parts/fields.tsx';
import { Badge, Notice } from '../parts/marks.tsx';
import { Digest, Foreign, ImageLink } from '../parts/names.tsx';
import { Size } from '../parts/size.tsx';
import { Pager } from '../parts/pager.tsx';
import { Table, type Column } from '../parts/table.tsx';
import { Ago } from '../parts/time.tsx';
import { View } from '../parts/view.tsx';
import { WarmForm } from './warm.tsx';

const PAGE_SIZE = 50;
const REFRESH_MS = 15_000;
const FILTERS = ['all', 'in-use', 'unused', 'gone', 'kept', 'denied', 'incomplete'] as const;
/** The columns by which the server sorts. */
const SORTABLE = ['name', 'size', 'lastUsed', 'pods'] as const;

/** The stored images: searched, sorted and paged by the server. */
export function ImagesPage() {
  const { parameters } = route.value;
  const offset = Number(parameters.get('offset') ?? 0);
  const sort = { key: parameters.get('sort') ?? 'size', descending: (parameters.get('order') ?? 'desc') === 'desc' };
  const path = apiPath('/api/images', {
    search: parameters.get('search') ?? '',
    filter: parameters.get('filter') ?? 'all',
    upstream: parameters.get('upstream') ?? '',
    sort: sort.key,
    order: sort.descending ? 'desc' : 'asc',
    offset,
    limit: PAGE_SIZE,
  });
  const query = useQuery<Images>(path, { everyMs: REFRESH_MS });
  return (
    <View title={t('view.images')} aside={<Sum query={query} />}>
      <Choices upstreams={query.data?.upstreams ?? []} />
      <Loaded query={query}>
        {(data) => (
          <div class="stack">
            <Remarks images={data} />
            <Table
              caption={t('view.images')}
              columns={columns(data)}
              rows={data.images}
              keyOf={({ name, digest }) => name + digest}
              empty={t(data.takenAt === null ? 'images.listing' : 'images.none')}
              sort={sort}
              sortable={SORTABLE}
              onSort={({ key, descending }) => setParameters({ sort: key, order: descending ? 'desc' : 'asc', offset: undefined })}
              busy={query.loading}
            />
            <Pager
              offset={offset}
              limit={PAGE_SIZE}
              total={data.total}
              go={(offset) => setParameters({ offset: offset === 0 ? undefined : String(offset) })}
            />
          </div>
        )}
      </Loaded>
      <WarmForm />
    </View>
  );
}

function Sum({ query: { data } }: { query: Query<Images> }) {
  if (data === undefined || data.takenAt === null) return null;
  return (
    <span class="muted" role="status">
      {t('images.count', { count: data.total })} · {formatBytes(data.totalBytes)} · {t('images.takenAt')} <Ago at={data.takenAt} />
    </span>
  );
}

function Choices({ upstreams }: { upstreams: readonly string[] }) {
  const { parameters } = route.value;
  const filter = FILTERS.find((name) => name === parameters.get('filter')) ?? 'all';
  return (
    <div class="row" role="search">
      <SearchBox
        label={t('images.search')}
        value={parameters.get('search') ?? ''}
        change={(search) => setParameters({ search, offset: undefined })}
      />
      <Select
        label={t('images.filter')}
        value={filter}
        choices={FILTERS.map((value) => ({ value, text: t(`images.filter.${value}`) }))}
        change={(value) => setParameters({ filter: value === 'all' ? undefined : value, offset: undefined })}
      />
      <Select
        label={t('limits.upstream')}
        value={parameters.get('upstream') ?? ''}
        choices={[{ value: '', text: t('images.everyUpstream') }, ...upstreams.map((value) => ({ value, text: value }))]}
        change={(value) => setParameters({ upstream: value, offset: undefined })}
      />
    </div>
  );
}

function Remarks({ images: { podsProblem, truncated } }: { images: Images }) {
  return (
    <>
      {podsProblem === null ? null : (
        <p class="muted small">
          {t('images.noPods')}: {podsProblem}
        </p>
      )}
      {truncated ? <Notice tone="warning" title={t('images.truncated')} /> : null}
    </>
  );
}

function columns({ podsProblem }: Images): Column<ImageRow>[] {
  const columns: Column<ImageRow>[] = [
    { key: 'name', title: t('image.name'), isHeader: true, wide: true, cell: (row) => <Name row={row} /> },
    { key: 'size', title: t('image.size'), numeric: true, cell: (row) => <Size row={row} /> },
    { key: 'platforms', title: t('image.platforms'), cell: ({ platforms }) => <Platforms platforms={platforms} /> },
    { key: 'lastUsed', title: t('image.lastUsed'), cell: ({ lastUsed }) => <Ago at={lastUsed} /> },
    { key: 'pods', title: t('image.pods'), numeric: true, cell: ({ pods }) => (pods === null ? UNKNOWN : formatNumber(pods)) },
    { key: 'digest', title: t('image.digest'), cell: ({ digest }) => <Digest digest={digest} /> },
  ];
  return podsProblem === null ? columns : columns.filter(({ key }) => key !== 'pods');
}

function Name({ row }: { row: ImageRow }) {
  return (
    <>
      <ImageLink repository={row.repository} digest={row.digest} name={row.name} />
      <span class="badges">
        {row.complete ? null : <Badge tone="info">{t('image.incomplete')}</Badge>}
        {row.goneSince === null ? null : <Badge tone="warning">{t('image.gone')}</Badge>}
        {row.kept === null ? null : <Badge tone="neutral">{t(row.pinned ? 'image.kept.pinned' : `image.kept.${row.kept}`)}</Badge>}
        {row.denied === null ? null : (
          <Badge tone="bad" title={row.denied}>
            {t('image.denied')}
          </Badge>
        )}
      </span>
    </>
  );
}

const SHOWN_PLATFORMS = 3;

function Platforms({ platforms }: { platforms: readonly string[] }) {
  if (platforms.length === 0) return <>{UNKNOWN}</>;
  const more = platforms.length - SHOWN_PLATFORMS;
  return (
    <span title={platforms.join('\n')}>
      <Foreign text={platforms.slice(0, SHOWN_PLATFORMS).join(', ')} />
      {more > 0 ? ` ${t('image.more', { count: more })}` : null}
    </span>
  );
}
