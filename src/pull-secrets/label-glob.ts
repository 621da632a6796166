type Token = 'star' | { isNegated: boolean; ranges: readonly (readonly [from: string, to: string])[] };

/** One label of a host with wildcards, after Go's filepath.Match: `*`, and classes such as `[a-z]` and `[^0-9]`.
 *  @returns undefined if it is malformed: it matches nothing */
export function compileLabel(pattern: string): ((label: string) => boolean) | undefined {
  const tokens = tokensOf(pattern);
  return tokens && ((label) => matches(tokens, Array.from(label)));
}

function tokensOf(pattern: string): Token[] | undefined {
  const characters = Array.from(pattern);
  const tokens: Token[] = [];
  for (let at = 0; at < characters.length; at++) {
    const character = characters[at] as string;
    if (character === '[') {
      const found = classAt(characters, at);
      if (found === undefined) return undefined;
      tokens.push(found.token);
      at = found.end;
    } else if (character === '*') {
      if (tokens.at(-1) !== 'star') tokens.push('star');
    } else tokens.push({ isNegated: false, ranges: [[character, character]] });
  }
  return tokens;
}

/** @param at the index of `[` @returns `end`, the index of its `]` */
function classAt(characters: readonly string[], at: number): { token: Token; end: number } | undefined {
  const isNegated = characters[at + 1] === '^';
  const ranges: [string, string][] = [];
  let next = at + (isNegated ? 2 : 1);
  while (characters[next] !== ']' || ranges.length === 0) {
    const from = memberAt(characters, next++);
    if (from === undefined) return undefined;
    let to: string | undefined = from;
    if (characters[next] === '-') {
      to = memberAt(characters, next + 1);
      next += 2;
    }
    if (to === undefined) return undefined;
    ranges.push([from, to]);
  }
  return { token: { isNegated, ranges }, end: next };
}

function memberAt(characters: readonly string[], at: number): string | undefined {
  const character = characters[at];
  return character === '-' || character === ']' ? undefined : character;
}

/** Goes back to the last star alone, so that the time is bounded by the product of both lengths. */
function matches(tokens: readonly Token[], label: readonly string[]): boolean {
  let [token, at] = [0, 0];
  let retry: { token: number; at: number } | undefined;
  while (at < label.length) {
    const current = tokens[token];
    if (current === 'star') {
      retry = { token: token + 1, at };
      token++;
    } else if (current !== undefined && accepts(current, label[at] as string)) {
      token++;
      at++;
    } else if (retry === undefined) {
      return false;
    } else {
      retry.at++;
      ({ token, at } = retry);
    }
  }
  return tokens.slice(token).every((rest) => rest === 'star');
}

function accepts({ isNegated, ranges }: Exclude<Token, 'star'>, character: string): boolean {
  return ranges.some(([from, to]) => from <= character && character <= to) !== isNegated;
}
