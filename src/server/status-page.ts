/** The status of a process: nested plain values. A list of records becomes a table. `title` is the
 *  title of the page. */
export type Status = { [key: string]: StatusValue };
export type StatusValue = string | number | boolean | null | undefined | StatusValue[] | Status;

/** Renders a page without scripts or external resources. */
export function renderStatusPage(status: Status): string {
  const { title: own, ...rest } = status;
  const title = typeof own === 'string' ? own : 'kube-registry';
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${escape(title)}</title>
<style>body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em;color-scheme:light dark}
table{border-collapse:collapse}th,td{text-align:left;vertical-align:top;padding:.15em 1.2em .15em 0}th{font-weight:600}
table table{margin:.2em 0}</style>
<h1>${escape(title)}</h1>
${render(rest)}
<p><a href="/metrics">metrics</a> · <a href="/status">status as JSON</a></p>
</html>
`;
}

function render(value: StatusValue): string {
  if (Array.isArray(value)) return renderList(value);
  return isRecord(value) ? renderRecord(value) : escape(value ?? '–');
}

function renderRecord(record: Status): string {
  const rows = Object.entries(record).map(([key, value]) => `<tr><th scope="row">${escape(key)}</th><td>${render(value)}</td></tr>`);
  return rows.length === 0 ? '–' : `<table>${rows.join('\n')}</table>`;
}

function renderList(list: StatusValue[]): string {
  if (list.length === 0) return '–';
  const records = list.filter((entry) => isRecord(entry));
  if (records.length < list.length) return list.map((entry) => render(entry)).join('<br>');
  const columns = [...new Set(records.flatMap((record) => Object.keys(record)))];
  const head = columns.map((column) => `<th scope="col">${escape(column)}</th>`).join('');
  const rows = records.map((record) => `<tr>${columns.map((column) => `<td>${render(record[column])}</td>`).join('')}</tr>`);
  return `<table><tr>${head}</tr>${rows.join('\n')}</table>`;
}

function isRecord(value: StatusValue): value is Status {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function escape(value: string | number | boolean): string {
  return String(value).replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
