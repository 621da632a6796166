import { formatShare } from '../data/format.ts';
import type { ImageRow, Images } from '../data/model.ts';
import { t } from '../language/language.ts';
import { ImageLink } from '../parts/names.tsx';
import { Meter } from '../parts/marks.tsx';
import { Size } from '../parts/size.tsx';
import { Table, type Column } from '../parts/table.tsx';

/** The largest images. */
export function LargestImages({ images: { images, takenAt } }: { images: Images }) {
  const most = images[0]?.size ?? 1;
  const columns: Column<ImageRow>[] = [
    {
      key: 'name',
      title: t('image.name'),
      isHeader: true,
      wide: true,
      cell: ({ repository, digest, name, size }) => (
        <div class="stack">
          <ImageLink repository={repository} digest={digest} name={name} />
          <Meter label={t('largest.label', { name })} share={size / most} text={formatShare(size / most)} />
        </div>
      ),
    },
    { key: 'size', title: t('image.size'), numeric: true, cell: (row) => <Size row={row} /> },
  ];
  const empty = takenAt === null ? t('images.listing') : t('images.none');
  return (
    <Table caption={t('overview.largest')} columns={columns} rows={images} keyOf={({ name, digest }) => name + digest} empty={empty} />
  );
}
