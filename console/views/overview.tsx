import { signal } from '@preact/signals';
import { useEffect, useState } from 'preact/hooks';
import { lostSince } from '../data/api.ts';
import { formatBytes, formatDuration, formatMilliseconds, formatNumber, formatRate, formatShare, UNKNOWN } from '../data/format.ts';
import { live } from '../data/live.ts';
import type { ClashReport, ImageRow, Images, Overview, RateLimitReport, Replicas, Upstreams, WebhookReport } from '../data/model.ts';
import { findProblems, type Problem } from '../data/problems.ts';
import { useQuery } from '../data/query.ts';
import { routeTo } from '../data/router.ts';
import { t } from '../language/language.ts';
import { Loaded, Missing } from '../parts/async.tsx';
import { Segments } from '../parts/fields.tsx';
import { Figure, Meter, Notice, Section } from '../parts/marks.tsx';
import { Foreign, ImageLink } from '../parts/names.tsx';
import { Ago } from '../parts/time.tsx';
import { View } from '../parts/view.tsx';
import { CheckImage } from './check.tsx';
import { LargestImages } from './largest.tsx';
import { Limits } from './limits.tsx';
import type { Plots } from './plots.tsx';
import { ReplicaTable } from './replicas.tsx';

type Window = 'hour' | 'day';

const REFRESH_MS = 10_000;
/** Pods and images change slowly, and are expensive to list. */
const SLOW_REFRESH_MS = 60_000;

/** An overview: problems, slow downloads, usage. */
export function OverviewPage() {
  const overview = useQuery<Overview>('/api/overview', { everyMs: REFRESH_MS });
  const upstreams = useQuery<Upstreams>('/api/upstreams', { everyMs: REFRESH_MS });
  const clash = useQuery<ClashReport>('/api/clash', { everyMs: REFRESH_MS });
  const replicas = useQuery<Replicas>('/api/replicas', { everyMs: REFRESH_MS });
  const webhook = useQuery<WebhookReport>('/api/webhook?rewritten=no&limit=1', { everyMs: SLOW_REFRESH_MS });
  const largest = useQuery<Images>('/api/images?sort=size&order=desc&limit=5', { everyMs: SLOW_REFRESH_MS });
  const [window, setWindow] = useState<Window>('hour');
  const problems = findProblems({
    overview: overview.data,
    upstreams: upstreams.data,
    clash: clash.data,
    replicas: replicas.data,
    downloads: live.downloads.value,
  });
  const isShown = overview.data !== undefined || overview.error !== undefined;
  return (
    <View title={t('view.overview')}>
      <div class="stack" role="region" aria-label={t('overview.state')} aria-live="polite">
        <Problems problems={problems} isKnown={overview.data !== undefined && upstreams.data !== undefined} />
      </div>
      <Loaded query={overview}>
        {(data) => (
          <>
            <Missing unreachable={data.unreachable} />
            <Figures overview={data} clash={clash.data} webhook={webhook.data} largest={largest.data?.images[0]} />
          </>
        )}
      </Loaded>
      <CheckImage />
      <Section
        id="history"
        title={t('overview.history')}
        aside={<HistoryAside grafana={overview.data?.links.grafana ?? null} window={window} change={setWindow} />}
      >
        <LazyPlots window={window} isWanted={isShown} />
      </Section>
      <div class="columns">
        <Section id="limits" title={t('overview.limits')}>
          <Loaded query={overview}>{({ rateLimits }) => <Limits limits={rateLimits} />}</Loaded>
        </Section>
        <Section
          id="largest"
          title={t('overview.largest')}
          aside={<a href={routeTo('images', { sort: 'size', order: 'desc' })}>{t('overview.allImages')}</a>}
        >
          <Loaded query={largest}>{(images) => <LargestImages images={images} />}</Loaded>
        </Section>
      </div>
      <Section id="replicas" title={t('overview.replicas')}>
        <Loaded query={replicas}>{({ replicas }) => <ReplicaTable replicas={replicas} />}</Loaded>
      </Section>
    </View>
  );
}

/** The code that draws plots is a third of the script, and takes longer to run than the rest, so it
 *  is loaded when the figures have been painted. */
const loaded = signal<typeof Plots | undefined>(undefined);

function LazyPlots({ window, isWanted }: { window: Window; isWanted: boolean }) {
  useEffect(() => {
    if (!isWanted || loaded.value !== undefined) return;
    // If that fails, the next visit to this view tries again.
    void import('./plots.tsx').then(({ Plots }) => (loaded.value = Plots)).catch(() => undefined);
  }, [isWanted]);
  const Drawn = loaded.value;
  return <div class="plots-place">{Drawn === undefined ? <p class="loading">{t('loading')}</p> : <Drawn window={window} />}</div>;
}

function HistoryAside({ grafana, window, change }: { grafana: string | null; window: Window; change: (window: Window) => void }) {
  const choices = (['hour', 'day'] as const).map((value) => ({ value, text: t(`plot.${value}`) }));
  return (
    <>
      {grafana === null ? null : <a href={grafana}>{t('overview.grafana')}</a>}
      <Segments label={t('plot.window')} value={window} choices={choices} change={change} />
    </>
  );
}

function Problems({ problems, isKnown }: { problems: readonly Problem[]; isKnown: boolean }) {
  if (!isKnown || lostSince.value !== undefined) return null;
  if (problems.length === 0) return <Notice tone="good" title={t('overview.well')} />;
  return (
    <>
      {problems.map(({ id, tone, key, values, detail, figures, check, view }) => (
        <Notice key={id ?? key + JSON.stringify(values)} tone={tone} title={t(key, values)}>
          <p>
            {detail === undefined ? null : (
              <>
                <Foreign text={detail} />{' '}
              </>
            )}
            {figures === undefined ? null : (
              <span aria-live="off">
                {figures}
                {t('check.end')}{' '}
              </span>
            )}
            {check === undefined ? null : <a href={routeTo('overview', { check })}>{t('problem.check')}</a>}
            {check === undefined ? null : ' · '}
            {view === 'overview' ? null : <a href={routeTo(view)}>{t(`view.${view}`)}</a>}
          </p>
        </Notice>
      ))}
    </>
  );
}

interface FiguresProps {
  overview: Overview;
  clash: ClashReport | undefined;
  webhook: WebhookReport | undefined;
  largest: ImageRow | undefined;
}

function Figures({ overview, clash, webhook, largest }: FiguresProps) {
  const { hitRate, hour, savedBytes, totals, startedAt, store, inventory, localTier } = overview;
  const downloads = live.downloads.value;
  return (
    <dl class="figures">
      <Figure
        name={t('figure.hitRate')}
        value={hitRate === null ? UNKNOWN : formatShare(hitRate)}
        note={hitRate === null ? t('figure.noReads') : t('figure.reads', { count: hour.hits + hour.stale + hour.misses + hour.errors })}
      />
      <Figure
        name={t('figure.saved')}
        value={formatBytes(savedBytes)}
        note={
          <>
            {t('figure.savedOf', { bytes: formatBytes(totals.sentBytes) })} <Ago at={startedAt} />
          </>
        }
      />
      <Figure
        name={t('figure.downloads')}
        value={<a href={routeTo('downloads')}>{formatNumber(downloads?.total ?? overview.runningDownloads)}</a>}
        note={downloads === undefined ? undefined : formatRate(downloads.bytesPerSecond)}
      />
      <Figure
        name={t('figure.store')}
        value={store.bytes === null ? UNKNOWN : formatBytes(store.bytes)}
        note={<StoreNote store={store} images={inventory.images} />}
      />
      {largest === undefined ? null : <LargestFigure image={largest} />}
      {localTier === null ? null : (
        <Figure name={t('figure.tier')} value={formatBytes(localTier.bytes)} note={<TierNote tier={localTier} />} />
      )}
      <LimitFigure limits={overview.rateLimits} />
      {clash?.enabled === true ? <ClashFigure clash={clash} /> : null}
      {webhook !== undefined && (webhook.enabled || webhook.takenAt !== null) ? <WebhookFigure webhook={webhook} /> : null}
    </dl>
  );
}

function LargestFigure({ image }: { image: ImageRow }) {
  const { repository, digest, name } = image;
  return (
    <Figure
      name={t('figure.largest')}
      value={formatBytes(image.size)}
      note={<ImageLink repository={repository} digest={digest} name={name} />}
    />
  );
}

function StoreNote({ store, images }: { store: Overview['store']; images: number | null }) {
  const { bytes, limit } = store;
  return (
    <>
      {images === null ? '' : t('figure.images', { count: images })}
      {limit === null || bytes === null ? null : (
        <>
          {images === null ? null : ' · '}
          {t('figure.limit', { limit: formatBytes(limit) })}
          <Meter
            label={t('figure.store')}
            share={bytes / limit}
            text={formatShare(bytes / limit)}
            tone={bytes / limit > 0.9 ? 'warning' : 'neutral'}
          />
        </>
      )}
    </>
  );
}

function TierNote({ tier }: { tier: NonNullable<Overview['localTier']> }) {
  return (
    <>
      {t('figure.ofLimit', { limit: formatBytes(tier.maxBytes) })}
      {tier.waitingBlobs === 0 ? null : ` · ${t('figure.waiting', { count: tier.waitingBlobs, bytes: formatBytes(tier.waitingBytes) })}`}
      <Meter label={t('figure.tier')} share={tier.bytes / tier.maxBytes} text={formatShare(tier.bytes / tier.maxBytes)} />
    </>
  );
}

/** The upstream with the fewest remaining pulls. */
function LimitFigure({ limits }: { limits: readonly RateLimitReport[] }) {
  const [least] = limits.toSorted((one, other) => one.remaining - other.remaining);
  if (least === undefined) return null;
  const { upstream, remaining, limit, windowSeconds } = least;
  return (
    <Figure
      name={t('limits.label', { upstream })}
      value={formatNumber(remaining)}
      note={
        <>
          {limit === null ? null : t('figure.ofLimit', { limit: formatNumber(limit) })}{' '}
          {windowSeconds === null ? null : t('limits.window', { duration: formatDuration(windowSeconds * 1000) })}
        </>
      }
    />
  );
}

function ClashFigure({ clash }: { clash: ClashReport }) {
  const node = clash.nodes.find(({ name }) => name === clash.chosen);
  return (
    <Figure
      name={t('figure.node')}
      value={
        <a href={routeTo('proxy')} class="figure-name">
          <Foreign text={clash.chosen ?? t('proxy.none')} />
        </a>
      }
      note={node?.delayMs == null ? t('proxy.noDelay') : t('figure.delay', { delay: formatMilliseconds(node.delayMs) })}
    />
  );
}

function WebhookFigure({ webhook }: { webhook: WebhookReport }) {
  const left = webhook.reasons.filter(({ reason }) => reason !== 'rewritten').reduce((sum, { images }) => sum + images, 0);
  const rewritten = webhook.reasons.find(({ reason }) => reason === 'rewritten')?.images ?? 0;
  return (
    <Figure
      name={t('figure.notRewritten')}
      value={<a href={routeTo('webhook')}>{webhook.problem === null ? formatNumber(left) : UNKNOWN}</a>}
      note={webhook.problem === null ? t('figure.rewritten', { count: rewritten }) : t('figure.podsNotListed')}
    />
  );
}
