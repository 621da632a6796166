/** A panel: its title, its unit, and the PromQL with the name of each line. */
interface Panel {
  title: string;
  unit: string;
  lines: [expression: string, legend: string][];
}

const OWN = 'namespace=~"$namespace"';
const rate = (metric: string, by: string, where = ''): string => `sum by (${by}) (rate(${metric}{${OWN}${where}}[$__rate_interval]))`;

const PANELS: Panel[] = [
  { title: 'Cache reads by outcome', unit: 'reqps', lines: [[rate('kube_registry_cache_reads_total', 'outcome'), '{{outcome}}']] },
  {
    title: 'Served without upstream',
    unit: 'percentunit',
    lines: [
      [
        `${rate('kube_registry_cache_reads_total', 'kind', ',outcome=~"hit|stale"')} / ${rate('kube_registry_cache_reads_total', 'kind')}`,
        '{{kind}}',
      ],
    ],
  },
  {
    title: 'Bytes sent to nodes and received from upstreams',
    unit: 'Bps',
    lines: [
      [rate('kube_registry_sent_bytes_total', 'namespace'), 'sent'],
      [rate('kube_registry_received_bytes_total', 'upstream'), 'received from {{upstream}}'],
    ],
  },
  {
    title: 'Requests to upstreams by outcome',
    unit: 'reqps',
    lines: [[rate('kube_registry_upstream_requests_total', 'upstream, outcome'), '{{upstream}} {{outcome}}']],
  },
  {
    title: 'Upstream: seconds until headers, 95th percentile',
    unit: 's',
    lines: [[`histogram_quantile(0.95, ${rate('kube_registry_upstream_seconds_bucket', 'upstream, le')})`, '{{upstream}}']],
  },
  {
    title: 'Remaining pulls of upstreams',
    unit: 'short',
    lines: [[`min by (upstream) (kube_registry_ratelimit_remaining{${OWN}})`, '{{upstream}}']],
  },
  {
    title: 'Downloads',
    unit: 'short',
    lines: [
      [`sum(kube_registry_downloads_running{${OWN}})`, 'running'],
      [`sum by (outcome) (increase(kube_registry_downloads_total{${OWN}}[$__rate_interval]))`, 'ended: {{outcome}}'],
    ],
  },
  {
    title: 'Responses with an error',
    unit: 'reqps',
    lines: [[rate('kube_registry_http_requests_total', 'upstream, status', ',status=~"4..|5.."'), '{{upstream}} {{status}}']],
  },
  {
    title: 'Pulls refused by a rule of registry.policy',
    unit: 'reqps',
    lines: [[rate('kube_registry_denied_total', 'upstream, rule'), '{{upstream}} {{rule}}']],
  },
  {
    title: 'Failed calls to the store',
    unit: 'reqps',
    lines: [[rate('kube_registry_storage_errors_total', 'operation'), '{{operation}}']],
  },
  {
    title: 'Blobs waiting for upload',
    unit: 'bytes',
    lines: [[`sum by (pod) (kube_registry_upload_queue_bytes{${OWN}})`, '{{pod}}']],
  },
  {
    title: 'Between replicas',
    unit: 'short',
    lines: [
      [`min(kube_registry_peers_live{${OWN}})`, 'replicas that each knows to live'],
      [rate('kube_registry_peer_requests_total', 'outcome'), 'requests a second: {{outcome}}'],
    ],
  },
  {
    title: 'Sources to which agents were sent for blobs',
    unit: 'reqps',
    lines: [[rate('kube_registry_placed_blobs_total', 'place'), '{{place}}']],
  },
  { title: 'Nodes that share blobs', unit: 'short', lines: [[`max by (pod) (kube_registry_sharing_nodes{${OWN}})`, '{{pod}}']] },
  { title: 'Local tier', unit: 'bytes', lines: [[`sum by (pod) (kube_registry_local_bytes{${OWN}})`, '{{pod}}']] },
  {
    title: "Images of the cluster's pods",
    unit: 'short',
    lines: [[`max by (state) (kube_registry_pod_images{${OWN}})`, '{{state}}']],
  },
  {
    title: 'Evaluations of the policy by API servers, by error',
    unit: 'reqps',
    lines: [
      [
        'sum by (error_type) (rate(apiserver_mutating_admission_policy_check_total{policy=~".*-policy"}[$__rate_interval]))',
        '{{error_type}}',
      ],
    ],
  },
  {
    title: 'Proxy nodes of clash',
    unit: 'short',
    lines: [[`max by (subscription, state) (kube_registry_clash_nodes{${OWN}})`, '{{subscription}} {{state}}']],
  },
  {
    title: 'Proxy node in use: last test',
    unit: 's',
    lines: [[`max by (pod) (kube_registry_clash_chosen_delay_seconds{${OWN}})`, '{{pod}}']],
  },
  {
    title: 'Remaining traffic of subscriptions',
    unit: 'bytes',
    lines: [[`min by (subscription) (kube_registry_clash_subscription_left_bytes{${OWN}})`, '{{subscription}}']],
  },
  { title: 'Removed by pruning', unit: 'Bps', lines: [[rate('kube_registry_pruned_bytes_total', 'namespace'), 'removed']] },
  { title: 'Memory', unit: 'bytes', lines: [[`process_resident_memory_bytes{${OWN},job=~"registry|webhook|clash"}`, '{{job}} {{pod}}']] },
  {
    title: 'Event loop: 99th percentile of its delay',
    unit: 's',
    lines: [[`nodejs_eventloop_lag_p99_seconds{${OWN},job=~"registry|webhook|clash"}`, '{{job}} {{pod}}']],
  },
];

const WIDTH = 12;
const HEIGHT = 8;

/** The Grafana dashboard, as stored in the ConfigMap. */
export function dashboard(): unknown {
  return {
    title: 'kube-registry',
    uid: 'kube-registry',
    schemaVersion: 39,
    tags: ['kube-registry'],
    time: { from: 'now-3h', to: 'now' },
    refresh: '30s',
    templating: {
      list: [
        { name: 'datasource', type: 'datasource', query: 'prometheus' },
        {
          name: 'namespace',
          type: 'query',
          datasource: { type: 'prometheus', uid: '${datasource}' },
          query: 'label_values(kube_registry_downloads_running, namespace)',
          includeAll: true,
          multi: true,
          current: { text: 'All', value: '$__all' },
        },
      ],
    },
    panels: PANELS.map(({ title, unit, lines }, index) => ({
      id: index + 1,
      type: 'timeseries',
      title,
      datasource: { type: 'prometheus', uid: '${datasource}' },
      fieldConfig: { defaults: { unit, min: 0 }, overrides: [] },
      gridPos: { x: (index % 2) * WIDTH, y: Math.floor(index / 2) * HEIGHT, w: WIDTH, h: HEIGHT },
      targets: lines.map(([expr, legendFormat], line) => ({ refId: String.fromCodePoint(65 + line), expr, legendFormat })),
    })),
  };
}

/** The queries of all panels, with values in place of Grafana's variables. */
export function dashboardExpressions(): string[] {
  return PANELS.flatMap(({ lines }) =>
    lines.map(([expression]) => expression.replaceAll('$__rate_interval', '5m').replaceAll('$namespace', 'images')),
  );
}
