import type { ComponentChildren } from 'preact';
import { useState } from 'preact/hooks';
import { t } from '../language/language.ts';
import { Icon } from './icon.tsx';

export interface Column<Row> {
  key: string;
  title: string;
  cell: (row: Row) => ComponentChildren;
  /** Aligned to the right, with digits of one width. */
  numeric?: boolean;
  /** Whether this column names the row. */
  isHeader?: boolean;
  /** Whether the column takes the remaining width. */
  wide?: boolean;
  /** The sort key of the column; absent: not sortable. Ignored when the server sorts. */
  value?: (row: Row) => string | number | undefined;
}

export interface Sort {
  key: string;
  descending: boolean;
}

export interface TableProps<Row> {
  /** The name for screen readers. */
  caption: string;
  columns: readonly Column<Row>[];
  rows: readonly Row[];
  keyOf: (row: Row) => string;
  /** Shown when there are no rows. */
  empty: ComponentChildren;
  sort?: Sort | undefined;
  /** Keys of sortable columns. */
  sortable?: readonly string[] | undefined;
  onSort?: ((sort: Sort) => void) | undefined;
  busy?: boolean;
}

/** A table that becomes a list of cards on a narrow screen. The roles are explicit, because
 *  browsers drop a table's own roles when its display changes. */
export function Table<Row>({ caption, columns, rows, keyOf, empty, sort, sortable = [], onSort, busy = false }: TableProps<Row>) {
  if (rows.length === 0) return <p class="empty">{empty}</p>;
  return (
    <table role="table" class="table" aria-busy={busy}>
      <caption class="hidden-text">{caption}</caption>
      <thead role="rowgroup">
        <tr role="row">
          {columns.map((column) => (
            <HeaderCell key={column.key} column={column} sort={sort} onSort={sortable.includes(column.key) ? onSort : undefined} />
          ))}
        </tr>
      </thead>
      <tbody role="rowgroup">
        {rows.map((row) => (
          <tr role="row" key={keyOf(row)}>
            {columns.map((column) => (
              <Cell key={column.key} column={column} row={row} />
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function HeaderCell<Row>({
  column,
  sort,
  onSort,
}: {
  column: Column<Row>;
  sort: Sort | undefined;
  onSort: ((sort: Sort) => void) | undefined;
}) {
  const sorted = sort?.key === column.key ? sort : undefined;
  const direction = sorted === undefined ? 'none' : sorted.descending ? 'descending' : 'ascending';
  if (onSort === undefined)
    return (
      <th role="columnheader" scope="col" class={classOf(column)}>
        {column.title}
      </th>
    );
  // Numbers are sorted in descending order first.
  const next = { key: column.key, descending: sorted === undefined ? column.numeric === true : !sorted.descending };
  return (
    <th role="columnheader" scope="col" class={`${classOf(column)} sortable`} aria-sort={direction}>
      <button type="button" class="sort" onClick={() => onSort(next)} title={t('table.sort', { column: column.title })}>
        {column.title}
        <Icon name={direction === 'none' ? 'unsorted' : direction} />
      </button>
    </th>
  );
}

function Cell<Row>({ column, row }: { column: Column<Row>; row: Row }) {
  const content = column.cell(row);
  if (column.isHeader === true)
    return (
      <th role="rowheader" scope="row" class={classOf(column)}>
        {content}
      </th>
    );
  return (
    <td role="cell" class={classOf(column)} data-label={column.title}>
      {content}
    </td>
  );
}

function classOf({ numeric, wide }: { numeric?: boolean; wide?: boolean }): string {
  return `${numeric === true ? 'numeric' : ''} ${wide === true ? 'wide' : ''}`.trim();
}

/** A table with all rows loaded, sorted in the page. */
export function SortedTable<Row>({ initial, ...props }: Omit<TableProps<Row>, 'sort' | 'sortable' | 'onSort'> & { initial: Sort }) {
  const [sort, setSort] = useState(initial);
  const column = props.columns.find(({ key }) => key === sort.key);
  const rows = column?.value === undefined ? props.rows : sortRows(props.rows, column.value, sort.descending);
  const sortable = props.columns.filter(({ value }) => value !== undefined).map(({ key }) => key);
  return <Table {...props} rows={rows} sort={sort} sortable={sortable} onSort={setSort} />;
}

/** Rows without a value come last, whatever the direction. */
function sortRows<Row>(rows: readonly Row[], value: (row: Row) => string | number | undefined, descending: boolean): Row[] {
  const sign = descending ? -1 : 1;
  return rows.toSorted((a, b) => {
    const [left, right] = [value(a), value(b)];
    if (left === undefined || right === undefined) return Number(left === undefined) - Number(right === undefined);
    if (typeof left === 'number' && typeof right === 'number') return (left - right) * sign;
    return String(left).localeCompare(String(right)) * sign;
  });
}
