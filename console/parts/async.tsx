import type { ComponentChildren } from 'preact';
import { ApiError } from '../data/api.ts';
import type { Query } from '../data/query.ts';
import { t } from '../language/language.ts';
import { Notice } from './marks.tsx';

/** What a question's answer looks like, or that it is on its way, or why there is none. An older
 *  answer stays while a newer one is missing. */
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

/** Which replicas are missing in what is shown. */
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
