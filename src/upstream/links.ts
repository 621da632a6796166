/** Parses the Link header of a page and returns the URL reference of the next page (RFC 8288 §3).
 *  @returns undefined: there is no next page */
export function parseNextLink(header: string | string[] | undefined): string | undefined {
  for (const text of [header ?? []].flat()) {
    for (const [, target = '', parameters = ''] of text.slice(0, MAX_LENGTH).matchAll(LINK)) {
      const [, quoted, bare] = REL.exec(parameters) ?? [];
      const relations = (quoted ?? bare ?? '').toLowerCase().split(/\s+/);
      if (relations.includes('next')) return target;
    }
  }
  return undefined;
}

const MAX_LENGTH = 16_384;
const LINK = /<([^<>]*)>((?:\s*;\s*[^\s;,="]+\s*(?:=\s*(?:"[^"]*"|[^\s;,"]*))?)*)/g;
const REL = /;\s*rel\s*=\s*(?:"([^"]*)"|([^\s;,"]*))/i;

/** The parts of a registry's URL: `https://host/base` + `/v2/` + `project/`. */
export interface RegistryPath {
  /** `https://host:port` */
  origin: string;
  /** `/base`, or empty. */
  base: string;
  /** `project/`, or empty. */
  project: string;
}

/** Splits the URL of a registry, as users write it: with or without a base path, with or without
 *  `/v2` and a project behind it. `endsInV2`: nothing comes after /v2, which is then
 *  superfluous. */
export function parseRegistryUrl(text: string): RegistryPath & { endsInV2: boolean } {
  const { origin, pathname } = new URL(text);
  const path = pathname.replace(/\/+$/, '');
  const at = `${path}/`.indexOf('/v2/');
  if (at < 0) return { origin, base: path, project: '', endsInV2: false };
  const project = path.slice(at + '/v2/'.length);
  return { origin, base: path.slice(0, at), project: project === '' ? '' : `${project}/`, endsInV2: project === '' };
}

/** The URL of the next page of a list. Only the path and query of a link are used: a registry
 *  behind a proxy may not know the name and scheme, nor the base path and project, under which it
 *  is reached.
 *  @param page where this page came from, after redirects
 *  @returns undefined: `link` is not a URL */
export function resolveNextPage(link: string, page: URL, { origin, base, project }: RegistryPath): URL | undefined {
  const next = URL.parse(link, page);
  if (next === null) return undefined;
  let path = next.pathname;
  if (page.origin === origin && !path.startsWith(`${base}/v2/${project}`)) {
    if (path.startsWith(`${base}/v2/`) && base !== '') path = `${base}/v2/${project}${path.slice(`${base}/v2/`.length)}`;
    else if (path.startsWith('/v2/')) path = `${base}/v2/${path.startsWith(`/v2/${project}`) ? '' : project}${path.slice('/v2/'.length)}`;
  }
  return new URL(path + next.search, page.origin);
}
