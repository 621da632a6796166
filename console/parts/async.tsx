import type { ComponentChildren } from 'preact';
import { ApiError } from '../data/api.ts';
import type { Query } from '../data/query.ts';
import { t } from '../language/language.ts';
import { Notice } from './marks.tsx';

/** Shows the content of a response, a loading indicator, or the error. The old content stays while
 *  a new response is loading. */
export function Loaded<Answer>({ query, children }: { query: Query<Answer>; children: (answer: Answer) => ComponentChildren }) {
  const { data, error } = query;
  return (
    <>
      {error === undefined ? null : <Failure error={error} reload={() => query.reload()} />}
      {data === undefined ? error === undefined && <p class="loading">{t('loading')}</p> : children(data)}
    </>
  );
}

function Failure({ error, reload }: { error: Error; reload: () => void }) {
  return (
    <Notice tone="bad" title={error instanceof ApiError ? error.message : t('error.noAnswer')}>
      <p>
        <button type="button" class="button small" onClick={reload}>
          {t('error.again')}
        </button>
      </p>
    </Notice>
  );
}

/** The replicas that are missing from the shown data. */
export function Missing({ unreachable }: { unreachable: readonly { address: string; problem: string }[] }) {
  if (unreachable.length === 0) return null;
  return (
    <Notice tone="warning" title={t('missing.title', { count: unreachable.length })}>
      <ul class="plain">
        {unreachable.map(({ address, problem }) => (
          <li key={address}>
            <code>{address}</code>: {problem}
          </li>
        ))}
      </ul>
    </Notice>
  );
}
