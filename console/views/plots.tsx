import { useMemo } from 'preact/hooks';
import { now } from '../data/clock.ts';
import { formatMilliseconds, formatNumber, formatRate } from '../data/format.ts';
import type { History } from '../data/model.ts';
import { useQuery } from '../data/query.ts';
import { ratesOf } from '../data/rates.ts';
import { t } from '../language/language.ts';
import { Loaded } from '../parts/async.tsx';
import { Plot } from '../parts/plot.tsx';

const REFRESH_MS = 10_000;

/** The last hour or day: requests, traffic, and response times. */
export function Plots({ window }: { window: 'hour' | 'day' }) {
  const history = useQuery<History>(`/api/history?window=${window}`, { everyMs: window === 'hour' ? REFRESH_MS : 6 * REFRESH_MS });
  return <Loaded query={history}>{(data) => <Drawn history={data} />}</Loaded>;
}

function Drawn({ history }: { history: History }) {
  const { latencyMs, answerMs } = history;
  const times = useMemo(() => timesOf(history), [history]);
  const perSecond = useMemo(() => ratesOf(history, now.peek()), [history]);
  return (
    <div class="plots">
      <Plot
        title={t('plot.requests')}
        times={times}
        format={formatNumber}
        series={[
          { name: t('plot.hits'), color: 'plot-1', values: history.hits, filled: true },
          { name: t('plot.misses'), color: 'plot-2', values: history.misses },
          { name: t('plot.errors'), color: 'plot-5', values: history.errors },
        ]}
      />
      <Plot
        title={t('plot.traffic')}
        times={times}
        format={formatRate}
        binary
        series={[
          { name: t('plot.sent'), color: 'plot-1', values: perSecond.sent, filled: true },
          { name: t('plot.fetched'), color: 'plot-2', values: perSecond.fetched },
        ]}
      />
      <Plot
        title={t('plot.times')}
        times={times}
        format={formatMilliseconds}
        series={[
          { name: t('plot.answer'), color: 'plot-3', values: answerMs },
          { name: t('plot.latency'), color: 'plot-4', values: latencyMs },
        ]}
      />
    </div>
  );
}

function timesOf({ since, stepSeconds, requests }: History): number[] {
  const start = Date.parse(since);
  return requests.map((_, index) => start + index * stepSeconds * 1000);
}
