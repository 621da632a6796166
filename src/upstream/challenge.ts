/** One of the ways to log in that a WWW-Authenticate header offers. Names are in lower case. */
export interface Challenge {
  scheme: string;
  parameters: Record<string, string>;
}

/** The longest part of a header that is read, in characters. */
const MAX_LENGTH = 8192;
const SEPARATORS = /[\s,]*/y;
/** RFC 9110 §5.6.2. */
const TOKEN = /[!#$%&'*+\-.^_`|~0-9A-Za-z]+/y;
const EQUALS = /\s*=\s*/y;
const QUOTED = /"((?:[^"\\]|\\[^])*)"/y;
/** Registries send URLs and scopes without quotes too. */
const BARE = /[^\s,"]+/y;
const TOKEN68 = /[A-Za-z0-9\-._~+/]+=*(?=\s*(?:,|$))/y;

/** Parses WWW-Authenticate headers (RFC 9110 §11.6.1). A header may hold several challenges, and
 *  commas separate both the challenges and their parameters. Parts that cannot be parsed are
 *  skipped. */
export function parseChallenges(headers: readonly string[]): Challenge[] {
  return headers.flatMap((header) => parseHeader(header.slice(0, MAX_LENGTH)));
}

function parseHeader(text: string): Challenge[] {
  const challenges: Challenge[] = [];
  let at = 0;
  /** Matches at the current position and moves behind it. */
  const take = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = at;
    const match = pattern.exec(text);
    if (match !== null) at = pattern.lastIndex;
    return match;
  };
  for (take(SEPARATORS); at < text.length; take(SEPARATORS)) {
    const [name] = take(TOKEN) ?? [];
    if (name === undefined) {
      at++; // no token starts with this character
      continue;
    }
    const current = challenges.at(-1);
    if (current !== undefined && take(EQUALS) !== null) {
      const [bare, quoted] = take(QUOTED) ?? take(BARE) ?? [''];
      current.parameters[name.toLowerCase()] = quoted?.replace(/\\([^])/g, '$1') ?? bare;
    } else {
      challenges.push({ scheme: name.toLowerCase(), parameters: Object.create(null) as Record<string, string> });
      if (take(/\s+/y) !== null) take(TOKEN68); // a token68 of a scheme that no registry uses
    }
  }
  return challenges;
}
