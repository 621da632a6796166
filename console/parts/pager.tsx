import { t } from '../language/language.ts';
import { Icon } from './icon.tsx';

export interface PagerProps {
  offset: number;
  limit: number;
  total: number;
  go: (offset: number) => void;
}

/** `51–100 of 1,234`, and links to the previous and next page. */
export function Pager({ offset, limit, total, go }: PagerProps) {
  if (total === 0) return null;
  const last = Math.min(offset + limit, total);
  return (
    <nav class="pager" aria-label={t('pager.label')}>
      <span role="status">{t('pager.range', { first: offset + 1, last, total })}</span>
      <span class="row">
        <button type="button" class="button small" disabled={offset === 0} onClick={() => go(Math.max(0, offset - limit))}>
          <Icon name="previous" />
          {t('pager.previous')}
        </button>
        <button type="button" class="button small" disabled={last >= total} onClick={() => go(offset + limit)}>
          {t('pager.next')}
          <Icon name="next" />
        </button>
      </span>
    </nav>
  );
}
