import { formatBytes } from '../data/format.ts';
import type { ImageRow } from '../data/model.ts';
import { t } from '../language/language.ts';

/** The size of an image: its stored bytes, and its whole size if some bytes are not stored. */
export function Size({ row: { size, wholeSize, complete } }: { row: ImageRow }) {
  if (complete) return <>{formatBytes(size)}</>;
  return (
    <>
      {wholeSize === null
        ? t('size.stored', { size: formatBytes(size) })
        : t('size.of', { size: formatBytes(size), whole: formatBytes(wholeSize) })}
    </>
  );
}
