import { signal } from '@preact/signals';

/** The current location: `#/images?search=nginx` is the view `images` with the parameter
 *  `search`. */
export interface Route {
  view: string;
  /** The path after the view: `#/images/dockerhub/library/nginx` has `dockerhub/library/nginx`. */
  rest: string;
  parameters: URLSearchParams;
}

export function parseRoute(hash: string): Route {
  const [path = '', query = ''] = hash.replace(/^#\/?/, '').split('?', 2);
  const [view = '', ...rest] = path.split('/');
  return { view, rest: rest.map(decode).join('/'), parameters: new URLSearchParams(query) };
}

/** The fragment of a view. Parameters without a value are left out. */
export function routeTo(view: string, { rest = '', ...parameters }: Record<string, string | undefined> = {}): string {
  const given = Object.entries(parameters).filter((entry): entry is [string, string] => entry[1] !== undefined && entry[1] !== '');
  const query = new URLSearchParams(given).toString();
  const path = rest === '' ? view : `${view}/${rest.split('/').map(encodeURIComponent).join('/')}`;
  return `#/${path}${query === '' ? '' : `?${query}`}`;
}

/** A typed URL may contain invalid percent-encoding. */
function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export const route = signal<Route>(parseRoute(globalThis.location?.hash ?? ''));

export function followRoute(): void {
  addEventListener('hashchange', () => (route.value = parseRoute(location.hash)));
}

/** Replaces parameters of the current view without adding an entry to the browser's history. */
export function setParameters(changes: Record<string, string | undefined>): void {
  const { view, rest, parameters } = route.value;
  history.replaceState(null, '', routeTo(view, { rest, ...Object.fromEntries(parameters), ...changes }));
  route.value = parseRoute(location.hash);
}
