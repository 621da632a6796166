import type { Metrics } from '../telemetry/metrics.ts';
import type { Outcome } from './mihomo/apply.ts';
import type { ClashStatus } from './supervise.ts';

export interface ClashMetrics {
  counted(outcome: Outcome | 'failed'): void;
}

/** The metrics of the proxy, read from the `latest` status at each scrape. Nodes are not a label,
 *  since they change with every fetch: /status names them. */
export function createClashMetrics(metrics: Metrics, latest: () => ClashStatus | undefined): ClashMetrics {
  const configs = metrics.counter(
    'clash_configs_total',
    'Changed configs by outcome: applied, unproven (nothing could be reached with it), invalid, failed (mihomo did not answer).',
    ['outcome'],
  );
  metrics.table('clash_nodes', 'Nodes by subscription and state: up, down, untested.', ['subscription', 'state'], () => {
    const counts = new Map<string, { labels: { subscription: string; state: string }; value: number }>();
    const names = latest()?.subscriptions.map(({ name }) => name) ?? [];
    for (const subscription of [...names, 'none']) {
      for (const state of ['up', 'down', 'untested']) counts.set(`${subscription} ${state}`, { labels: { subscription, state }, value: 0 });
    }
    for (const { subscription = 'none', alive } of latest()?.nodes ?? []) {
      const row = counts.get(`${subscription} ${alive === undefined ? 'untested' : alive ? 'up' : 'down'}`);
      if (row !== undefined) row.value++;
    }
    return [...counts.values()];
  });
  const chosen = () => latest()?.nodes.find(({ name }) => name === latest()?.chosen);
  metrics.watch('clash_chosen_up', 'Whether the node in use answered its last test.', () => (chosen()?.alive === true ? 1 : 0));
  metrics.table('clash_chosen_delay_seconds', 'How long the last test of the node in use took.', [], () => {
    const delay = chosen()?.delay;
    return delay === undefined ? [] : [{ labels: {}, value: delay / 1000 }];
  });
  metrics.table('clash_traffic_bytes', 'Bytes through the proxy since it started, by direction.', ['direction'], () => {
    const { uploaded = 0, downloaded = 0 } = latest()?.traffic ?? {};
    return [
      { labels: { direction: 'up' }, value: uploaded },
      { labels: { direction: 'down' }, value: downloaded },
    ];
  });
  metrics.watch('clash_connections', 'Connections through the proxy now.', () => latest()?.traffic.connections ?? 0);
  metrics.watch('clash_restarts', 'How often mihomo ended by itself and was restarted.', () => latest()?.mihomo.restarts ?? 0);
  metrics.watch('clash_config_proven', 'Whether a request has succeeded with the config in use.', () =>
    latest()?.config.proven === true ? 1 : 0,
  );

  const each = (value: (own: ClashStatus['subscriptions'][number]) => number | undefined) => () =>
    (latest()?.subscriptions ?? []).flatMap((own) => {
      const found = value(own);
      return found === undefined ? [] : [{ labels: { subscription: own.name }, value: found }];
    });
  const seconds = (iso: string | undefined) => (iso === undefined ? undefined : Date.parse(iso) / 1000);
  metrics.table(
    'clash_subscription_age_seconds',
    'Seconds since the subscription in use was fetched.',
    ['subscription'],
    each(({ fetchedAt }) => {
      const at = seconds(fetchedAt);
      return at === undefined ? undefined : Date.now() / 1000 - at;
    }),
  );
  metrics.table(
    'clash_subscription_failing',
    'Whether the last attempt to fetch or use it failed.',
    ['subscription'],
    each(({ problem }) => (problem === undefined ? 0 : 1)),
  );
  metrics.table(
    'clash_subscription_left_bytes',
    'Traffic left, by what the provider says.',
    ['subscription'],
    each(({ left }) => left),
  );
  metrics.table(
    'clash_subscription_used_bytes',
    'Traffic used, by what the provider says.',
    ['subscription'],
    each(({ used }) => used),
  );
  metrics.table(
    'clash_subscription_expiry_seconds',
    'When the subscription expires, in seconds since 1970, by what the provider says.',
    ['subscription'],
    each(({ expires }) => seconds(expires)),
  );
  return { counted: (outcome) => configs({ outcome }) };
}
