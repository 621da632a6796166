import { formatDuration } from '../data/format.ts';
import type { PolicyReport } from '../data/model.ts';
import { useQuery } from '../data/query.ts';
import { t } from '../language/language.ts';
import { Loaded } from '../parts/async.tsx';
import { Section } from '../parts/marks.tsx';
import { Foreign } from '../parts/names.tsx';
import { Table, type Column } from '../parts/table.tsx';
import { When } from '../parts/time.tsx';
import { View } from '../parts/view.tsx';
import { CheckImage } from './check.tsx';

type Denied = PolicyReport['denied'][number];

const REFRESH_MS = 5000;

/** The rules of registry.policy, and the pulls that they refused. */
export function Rules() {
  const query = useQuery<PolicyReport>('/api/policy', { everyMs: REFRESH_MS });
  return (
    <View title={t('view.rules')} lead={t('rules.lead')}>
      <Loaded query={query}>
        {(policy) => (
          <>
            <Policy policy={policy} />
            <CheckImage />
            <Section id="denied" title={t('rules.denied')}>
              <Table
                caption={t('rules.denied')}
                columns={columns()}
                rows={policy.denied}
                keyOf={({ image, rule }) => `${image} ${rule}`}
                empty={t('rules.nothingDenied')}
              />
            </Section>
          </>
        )}
      </Loaded>
    </View>
  );
}

function Policy({ policy: { allow, deny, minimumAgeMs } }: { policy: PolicyReport }) {
  return (
    <dl class="facts panel">
      <dt>{t('rules.allow')}</dt>
      <dd>
        <Globs globs={allow} none={t('rules.everything')} />
      </dd>
      <dt>{t('rules.deny')}</dt>
      <dd>
        <Globs globs={deny} none={t('rules.nothing')} />
      </dd>
      <dt>{t('rules.minimumAge')}</dt>
      <dd>{minimumAgeMs === 0 ? t('rules.noAge') : formatDuration(minimumAgeMs)}</dd>
    </dl>
  );
}

function Globs({ globs, none }: { globs: readonly string[]; none: string }) {
  if (globs.length === 0) return <>{none}</>;
  return (
    <span class="tags">
      {globs.map((glob) => (
        <code key={glob} class="tag">
          <Foreign text={glob} />
        </code>
      ))}
    </span>
  );
}

function columns(): Column<Denied>[] {
  return [
    {
      key: 'image',
      title: t('image.name'),
      isHeader: true,
      wide: true,
      cell: ({ image }) => <Foreign text={image} />,
    },
    {
      key: 'rule',
      title: t('rules.rule'),
      cell: ({ rule }) => (
        <code>
          <Foreign text={rule} />
        </code>
      ),
    },
    { key: 'times', title: t('rules.times'), cell: ({ times }) => String(times) },
    { key: 'at', title: t('rules.at'), cell: ({ at }) => <When at={at} /> },
  ];
}
