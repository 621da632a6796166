import picomatch from 'picomatch';

/** Whether a text matches any of the patterns. */
export function globs(patterns: readonly string[]): (text: string) => boolean {
  if (patterns.length === 0) return () => false;
  const matches = picomatch([...patterns], { dot: true, nonegate: true });
  return (text) => matches(text);
}
