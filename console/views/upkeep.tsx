import { useState } from 'preact/hooks';
import { act } from '../data/actions.ts';
import { formatBytes, formatDuration, formatNumber } from '../data/format.ts';
import { live } from '../data/live.ts';
import type { Job, Jobs, Upkeep as Plan } from '../data/model.ts';
import { useQuery } from '../data/query.ts';
import { t } from '../language/language.ts';
import { ActionButton } from '../parts/action-button.tsx';
import { Loaded, Missing } from '../parts/async.tsx';
import { Dialog } from '../parts/dialog.tsx';
import { Notice, Section } from '../parts/marks.tsx';
import { Foreign } from '../parts/names.tsx';
import { Table, type Column } from '../parts/table.tsx';
import { Ago, When } from '../parts/time.tsx';
import { View } from '../parts/view.tsx';
import { JobList } from './jobs.tsx';
import { ReadOnly, WarmForm } from './warm.tsx';

type Result = NonNullable<Job['result']>;

const REFRESH_MS = 30_000;

/** Pruning and warming. */
export function Upkeep() {
  const first = useQuery<Jobs>('/api/jobs');
  const plan = useQuery<Plan>('/api/upkeep', { everyMs: REFRESH_MS });
  const jobs = (live.jobs.value ?? first.data)?.jobs ?? [];
  return (
    <View title={t('view.upkeep')} lead={t('upkeep.lead')}>
      <Section id="schedule" title={t('upkeep.schedule')}>
        <Loaded query={plan}>{(plan) => <Schedule plan={plan} />}</Loaded>
      </Section>
      <Prune jobs={jobs} />
      <WarmForm />
      <Section id="jobs" title={t('jobs.title')}>
        <JobList jobs={jobs} />
      </Section>
    </View>
  );
}

/** The automatic tasks. */
function Schedule({ plan: { pruning, warming, unreachable } }: { plan: Plan }) {
  return (
    <>
      <Missing unreachable={unreachable} />
      <dl class="facts panel">
        <dt>{t('upkeep.pruning')}</dt>
        <dd>
          {t('upkeep.every', { duration: formatDuration(pruning.everyMs) })}
          <Runs last={pruning.lastAt} next={pruning.nextAt} />
        </dd>
        <dt>{t('upkeep.warming')}</dt>
        <dd>
          {warming === null ? (
            t('upkeep.nothingWarmed')
          ) : (
            <>
              <code>{warming.schedule}</code>
              <Runs last={warming.lastAt} next={warming.nextAt} />
              {warming.lastAt === null ? null : (
                <div class="muted">{t('upkeep.warmed', { warm: warming.warm, failed: warming.failed, skipped: warming.skipped })}</div>
              )}
            </>
          )}
        </dd>
      </dl>
    </>
  );
}

function Runs({ last, next }: { last: string | null; next: string | null }) {
  return (
    <>
      <div>
        {t('upkeep.next')} {next === null ? t('upkeep.now') : <When at={next} />}
      </div>
      <div>
        {t('upkeep.last')} {last === null ? t('upkeep.never') : <When at={last} />}
      </div>
    </>
  );
}

/** Pruning needs a dry run first; only the images that it has shown can be pruned. */
function Prune({ jobs }: { jobs: readonly Job[] }) {
  const [asking, setAsking] = useState(false);
  const last = jobs.find(({ kind }) => kind === 'prune-dry-run' || kind === 'prune');
  const isRunning = jobs.some(({ kind, state }) => kind !== 'warm' && state === 'running');
  const plan = last?.kind === 'prune-dry-run' && last.state === 'done' ? last : undefined;
  return (
    <Section id="prune" title={t('prune.title')}>
      <p class="muted">{t('prune.lead')}</p>
      <p class="row">
        <ActionButton disabled={isRunning} onClick={() => dryRun()}>
          {t('prune.dryRun')}
        </ActionButton>
        <ActionButton kind="danger" disabled={isRunning || plan === undefined} onClick={() => setAsking(true)}>
          {t('prune.button')}
        </ActionButton>
      </p>
      <ReadOnly />
      <div aria-live="polite">{last === undefined ? null : <Outcome job={last} />}</div>
      {asking && plan?.result != null ? <Ask plan={plan.id} result={plan.result} close={() => setAsking(false)} /> : null}
    </Section>
  );
}

function dryRun(): void {
  act<Job>({ path: '/api/actions/prune', body: { dryRun: true }, done: () => ({ key: 'prune.started' }) });
}

function Ask({ plan, result, close }: { plan: string; result: Result; close: () => void }) {
  const prune = () => {
    close();
    act<Job>({ path: '/api/actions/prune', body: { dryRun: false, plan }, done: () => ({ key: 'prune.running' }) });
  };
  return (
    <Dialog title={t('prune.ask')} onClose={close}>
      <div class="stack">
        <p>{summary('prune.would', result)}</p>
        <p>{t('prune.irrevocable')}</p>
        <p class="dialog-buttons">
          <button type="button" class="button" onClick={close}>
            {t('dialog.cancel')}
          </button>
          <button type="button" class="button danger" onClick={prune}>
            {t('prune.button')}
          </button>
        </p>
      </div>
    </Dialog>
  );
}

function summary(key: 'prune.would' | 'prune.did', { imageCount, blobs, bytes, kept }: Result): string {
  return t(key, { images: formatNumber(imageCount), blobs: formatNumber(blobs), bytes: formatBytes(bytes), kept: formatNumber(kept) });
}

function Outcome({ job: { kind, state, problem, result, step } }: { job: Job }) {
  if (state === 'failed')
    return (
      <Notice tone="bad" title={t('prune.failed')}>
        {problem === null ? null : <p>{problem}</p>}
      </Notice>
    );
  if (state === 'running')
    return (
      <Notice tone="info" title={t('prune.working')}>
        {step === '' ? null : <p>{step}</p>}
      </Notice>
    );
  if (result === null) return null;
  return (
    <div class="stack">
      <Notice tone={kind === 'prune' ? 'good' : 'info'} title={summary(kind === 'prune' ? 'prune.did' : 'prune.would', result)} />
      {result.images.length === 0 ? null : <Pruned result={result} />}
    </div>
  );
}

function Pruned({ result: { images, imageCount } }: { result: Result }) {
  const columns: Column<Result['images'][number]>[] = [
    {
      key: 'names',
      title: t('image.name'),
      isHeader: true,
      wide: true,
      cell: ({ names }) => (
        <ul class="plain">
          {names.map((name) => (
            <li key={name}>
              <Foreign text={name} />
            </li>
          ))}
        </ul>
      ),
    },
    { key: 'used', title: t('image.lastUsed'), cell: ({ lastUsed }) => <Ago at={lastUsed} /> },
    { key: 'because', title: t('prune.because'), cell: ({ because }) => t(`prune.because.${because}`) },
  ];
  return (
    <>
      <Table caption={t('prune.images')} columns={columns} rows={images} keyOf={({ names }) => names.join(' ')} empty="" />
      {imageCount > images.length ? <p class="muted">{t('prune.more', { count: imageCount - images.length })}</p> : null}
    </>
  );
}
