/** One label of a host, in which `*` stands for any characters. Go's filepath.Match has classes as
 *  well, but its net/url refuses a bracket in a host, unless it begins an IPv6 address; without a
 *  port, such an address is treated as a class, and matches nothing.
 *  @returns undefined for a pattern that matches no label */
export function compileLabel(pattern: string): ((label: string) => boolean) | undefined {
  if (pattern.includes('[')) return undefined;
  const [first = '', ...others] = pattern.split('*');
  const last = others.pop();
  if (last === undefined) return (label) => label === pattern;
  return (label) => {
    if (!label.startsWith(first) || !label.endsWith(last)) return false;
    const end = label.length - last.length;
    let at = first.length;
    // Each part is matched at its first occurrence, which leaves the most text for the parts after
    // it.
    for (const part of others) {
      const found = label.indexOf(part, at);
      if (found === -1) return false;
      at = found + part.length;
    }
    return at <= end;
  };
}
