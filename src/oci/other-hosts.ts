import { isIP } from 'node:net';
import { globs } from './globs.ts';

/** The registries that are served although no upstream is configured for them, by the hosts that
 *  image names spell. */
export interface OtherHosts {
  /** @param host as an image name spells it, in lower case: `mcr.microsoft.com`,
   *  `registry.example.com:5000`
   *  @returns the first path component of its repositories: `registry.example.com_5000`; undefined:
   *  it is not served */
  segmentOf(host: string): string | undefined;
  /** @param segment the first component of a repository
   *  @returns the host, in lower case; undefined: the component is no host that is served */
  hostOf(segment: string): string | undefined;
  /** Whether the host is listed by its name, without a glob: only then may it be on an internal
   *  network. */
  isNamed(host: string): boolean;
  /** The hosts that are listed without a glob. */
  names: readonly string[];
  /** Whether every public host is served. */
  everything: boolean;
}

const LABEL = '[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?';
const HOST = new RegExp(`^(${LABEL}(?:\\.${LABEL})*)(?::([1-9]\\d{0,4}))?$`);
const SEGMENT = new RegExp(`^(${LABEL}(?:\\.${LABEL})*)(?:_([1-9]\\d{0,4}))?$`);
const MAX_HOST_LENGTH = 253;
const MAX_PORT = 65_535;
const GLOB = /[*?[\]{}()!]/;

/** @param patterns globs over hosts; `!` excludes: ["*", "!registry.internal.example.com"] */
export function createOtherHosts(patterns: readonly string[]): OtherHosts {
  const lower = patterns.map((pattern) => pattern.toLowerCase());
  const positive = lower.filter((pattern) => !pattern.startsWith('!'));
  const excluded = lower.filter((pattern) => pattern.startsWith('!')).map((pattern) => pattern.slice(1));
  const names = positive.filter((pattern) => !GLOB.test(pattern));
  const wide = positive.filter((pattern) => GLOB.test(pattern));
  const matches = globs(wide);
  const isExcluded = globs(excluded);

  function isServed(host: string, name: string): boolean {
    if (isExcluded(host)) return false;
    // An IP address, or a name that only a search domain completes, is not a public registry.
    return names.includes(host) || (isIP(name) === 0 && name.includes('.') && matches(host));
  }

  function segmentOf(given: string): string | undefined {
    const [, name, port] = HOST.exec(given) ?? [];
    if (name === undefined || name.length > MAX_HOST_LENGTH || Number(port ?? 1) > MAX_PORT) return undefined;
    if (!isServed(given, name)) return undefined;
    return port === undefined ? (name.includes('.') ? name : undefined) : `${name}_${port}`;
  }

  /** Every request is looked up here; matching a segment takes about a microsecond. */
  const named = new Map(names.map((host) => [segmentOf(host), host]));

  return {
    segmentOf,
    hostOf(segment) {
      const known = named.get(segment);
      if (known !== undefined) return known;
      const [, name, port] = SEGMENT.exec(segment) ?? [];
      if (name === undefined || name.length > MAX_HOST_LENGTH || Number(port ?? 1) > MAX_PORT) return undefined;
      if (port === undefined && !name.includes('.')) return undefined;
      const host = port === undefined ? name : `${name}:${port}`;
      return isServed(host, name) ? host : undefined;
    },
    isNamed: (host) => names.includes(host.toLowerCase()),
    names: names.filter((name) => !isExcluded(name)),
    everything: wide.includes('*'),
  };
}
