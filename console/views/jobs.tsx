import type { Job } from '../data/model.ts';
import { t } from '../language/language.ts';
import { Badge, Progress, type Tone } from '../parts/marks.tsx';
import { Foreign } from '../parts/names.tsx';
import { Table, type Column } from '../parts/table.tsx';
import { When } from '../parts/time.tsx';

const TONES: Record<Job['state'], Tone> = { running: 'info', done: 'good', failed: 'bad' };

/** Long-running actions, with the request, the user and the progress. */
export function JobList({ jobs }: { jobs: readonly Job[] }) {
  return <Table caption={t('jobs.title')} columns={columns()} rows={jobs} keyOf={({ id }) => id} empty={t('jobs.none')} />;
}

function columns(): Column<Job>[] {
  return [
    {
      key: 'what',
      title: t('jobs.what'),
      isHeader: true,
      wide: true,
      cell: ({ kind, what }) => (
        <>
          {t(`jobs.${kind}`)} <Foreign text={what} />
        </>
      ),
    },
    { key: 'state', title: t('jobs.state'), cell: (job) => <State job={job} /> },
    { key: 'user', title: t('jobs.user'), cell: ({ user }) => <Foreign text={user} /> },
    { key: 'started', title: t('jobs.started'), cell: ({ startedAt }) => <When at={startedAt} /> },
  ];
}

function State({ job: { state, step, done, total, problem, what } }: { job: Job }) {
  return (
    <div class="stack how-far">
      <span>
        <Badge tone={TONES[state]}>{t(`jobs.state.${state}`)}</Badge>{' '}
        <span class="muted">{problem ?? (state === 'running' ? step : '')}</span>
      </span>
      {state === 'running' ? (
        <Progress
          label={t('jobs.progress', { what })}
          share={total === 0 ? undefined : done / total}
          text={total === 0 ? step : `${done} / ${total}`}
        />
      ) : null}
    </div>
  );
}
